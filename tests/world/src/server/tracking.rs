//! CLIENT TRACKING: whom a change of a key is told, and when.

use super::Server;
use super::client::{ClientId, Tracking, WORLD};
use super::process::Cx;
use super::reply::Reply;

impl Server {
    /// The end of a turn: the invalidations leave, after all replies.
    pub fn end_turn(&mut self, now_ms: u64) {
        self.time.seen(now_ms);
        for client in &mut self.clients {
            let Some(tracking) = &mut client.tracking else {
                continue;
            };
            if tracking.names.is_empty() {
                continue;
            }
            let names = std::mem::take(&mut tracking.names);
            // In RESP2 there are no pushes.
            if !client.is_closed && client.session.protocol == 3 {
                invalidation(&mut client.output, Some(names));
            }
        }
    }

    /// Notes a changed key for those who want to hear of it.
    pub(super) fn announce(&mut self, cx: &Cx, key: &[u8]) {
        for client in &mut self.clients {
            let Some(tracking) = &mut client.tracking else {
                continue;
            };
            if tracking.no_loop && client.id == cx.client && client.id != WORLD {
                continue;
            }
            match &tracking.prefixes {
                Some(prefixes) => {
                    let is_meant = prefixes.is_empty()
                        || prefixes.iter().any(|prefix| key.starts_with(prefix));
                    if is_meant && !tracking.names.contains(key) {
                        tracking.names.insert(key.to_vec());
                    }
                }
                None => {
                    if tracking.read.remove(key) && client.session.protocol == 3 {
                        let is_own = client.id == cx.client;
                        let out = if is_own {
                            &mut client.late
                        } else {
                            &mut client.output
                        };
                        invalidation(out, Some([key.to_vec()]));
                    }
                }
            }
        }
    }

    /// Without BCAST a client hears of what it has read.
    pub(super) fn remember_read(&mut self, cx: &Cx, key: &[u8]) {
        let Some(client) = self.client_mut(cx.client) else {
            return;
        };
        if let Some(tracking) = client
            .tracking
            .as_mut()
            .filter(|tracking| tracking.prefixes.is_none())
        {
            tracking.read.insert(key.to_vec());
        }
    }

    /// A database was emptied: everybody who tracks hears of it at once.
    pub(super) fn announce_flush(&mut self, cx: &Cx) {
        for client in &mut self.clients {
            if client.tracking.is_none() || client.session.protocol < 3 {
                continue;
            }
            let is_own = client.id == cx.client;
            invalidation::<[Vec<u8>; 0]>(
                if is_own {
                    &mut client.late
                } else {
                    &mut client.output
                },
                None,
            );
        }
    }

    pub(super) fn track(&mut self, id: ClientId, tracking: Option<Tracking>) {
        if let Some(client) = self.client_mut(id) {
            client.tracking = tracking;
        }
    }
}

/// A push that names keys; without names, one that says that everything is invalid.
fn invalidation<T: IntoIterator<Item = Vec<u8>>>(out: &mut Vec<u8>, names: Option<T>) {
    let names = names.map(|names| Reply::Array(names.into_iter().map(Reply::Bulk).collect()));
    let push = vec![Reply::bulk("invalidate"), names.unwrap_or(Reply::Nil)];
    Reply::Push(push).write(out, 3);
}
