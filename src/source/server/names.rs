//! What SCAN answers: pages of names.

use anyhow::Result;

use super::{Sent, ServerSource};
use crate::server::resp::Item;
use crate::units::bytes_text;

/// Bytes that the names of one page may take in memory.
const PAGE_BYTES: usize = 64 * 1024 * 1024;

/// What a name costs beside its bytes.
const NAME_OVERHEAD_BYTES: usize = 64;

fn page_too_long() -> String {
    format!(
        "a page of SCAN with more than {} of names (a smaller --scan-count makes pages smaller)",
        bytes_text(PAGE_BYTES as u64)
    )
}

impl ServerSource {
    pub(super) fn read_scan(&mut self) -> Result<()> {
        self.conn.doing("scanning for keys");
        let known = self.keys.len();
        let (cursor, scanned) = match self.read_page() {
            Ok(Ok(page)) => page,
            Ok(Err(text)) => {
                // The same page again, in a while.
                if let Some(Sent::Scan(cursor)) = self.sent.pop_front() {
                    self.cursor = Some(cursor).filter(|_| !self.abandoned);
                }
                self.scan_in_flight = false;
                self.ask_later(&text);
                return Ok(());
            }
            Err(error) => {
                // Half a page is none: it is asked for again.
                self.keys.truncate(known);
                return Err(error);
            }
        };
        let asked = self.sent.pop_front();
        self.scan_in_flight = false;
        if cursor != b"0" && matches!(&asked, Some(Sent::Scan(asked)) if *asked == cursor) {
            // It would be asked for ever.
            return Err(self
                .conn
                .confused("SCAN gave back the cursor that it was asked with")
                .into());
        }
        let counts = self.counts.of(self.db);
        counts.scanned += scanned;
        counts.filtered += scanned - (self.keys.len() - known) as u64;
        self.page.came();
        self.cursor = (cursor != b"0" && !self.abandoned).then_some(cursor);
        if self.abandoned {
            self.drop_names();
        } else {
            self.leave_to_owners(known, false);
        }
        self.got_on();
        Ok(())
    }

    /// Reads a page of names: where the next one begins, and how many names there were. Those that
    /// are wanted join [`Self::keys`]. The inner error asks for patience.
    fn read_page(&mut self) -> Result<Result<(Vec<u8>, u64), String>> {
        match self.conn.item()? {
            Item::Array(2) => {}
            Item::Error(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                if self.asks_for_patience(&text) {
                    return Ok(Err(text));
                }
                return Err(self.conn.refusal("SCAN", text).into());
            }
            _ => {
                return Err(self
                    .conn
                    .confused("SCAN did not answer with two parts")
                    .into());
            }
        }
        let Item::Bulk(cursor) = self.conn.item()? else {
            return Err(self.conn.confused("SCAN gave no cursor").into());
        };
        let Item::Array(count) = self.conn.item()? else {
            return Err(self.conn.confused("SCAN gave no keys").into());
        };
        // Names of slots that are read elsewhere are none of ours, and in no count.
        let cluster = self.cluster.as_ref();
        let mut foreign = 0;
        let mut left = PAGE_BYTES;
        for _ in 0..count {
            let key = match self.conn.item_or_skip(left)? {
                Item::Bulk(key) => Some(key),
                Item::TooLong(_) => None,
                _ => return Err(self.conn.confused("SCAN gave a key that is none").into()),
            };
            let bytes = key
                .as_ref()
                .map_or(usize::MAX, |key| key.len() + NAME_OVERHEAD_BYTES);
            let (Some(key), Some(less)) = (key, left.checked_sub(bytes)) else {
                return Err(self.conn.confused(page_too_long()).into());
            };
            left = less;
            if cluster.is_some_and(|cluster| !cluster.reading.has_key(&key)) {
                foreign += 1;
            } else if self.options.selection.wants_key(&key) {
                self.keys.push_back(key);
            }
        }
        Ok(Ok((cursor, count as u64 - foreign)))
    }
}
