//! Connection flags, spelt as in redis-cli: once for verbs with one server, and with a prefix for
//! each side of a verb with two.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::endpoint::{ConnectOptions, NodeAddress, parse_node_map};
use crate::units::parse_duration;

macro_rules! server_flags {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $heading:literal) => {
        $(#[$doc])*
        #[derive(Debug, Args, Default)]
        #[command(next_help_heading = $heading)]
        pub struct $name {
            /// User name (ACL); wins over the URL's
            #[arg(id = concat!($prefix, "user"), long = concat!($prefix, "user"),
                  value_name = "NAME")]
            pub user: Option<String>,

            /// Read the password from FILE; a newline at its end is not part of it
            #[arg(id = concat!($prefix, "password-file"), long = concat!($prefix, "password-file"),
                  value_name = "FILE", conflicts_with = concat!($prefix, "askpass"))]
            pub password_file: Option<PathBuf>,

            /// Ask for the password on the terminal
            #[arg(id = concat!($prefix, "askpass"), long = concat!($prefix, "askpass"))]
            pub askpass: bool,

            /// Trust the CA certificates in this PEM file, not the system's
            #[arg(id = concat!($prefix, "cacert"), long = concat!($prefix, "cacert"),
                  value_name = "FILE")]
            pub cacert: Option<PathBuf>,

            /// Trust the CA certificates in this directory, not the system's
            #[arg(id = concat!($prefix, "cacertdir"), long = concat!($prefix, "cacertdir"),
                  value_name = "DIR")]
            pub cacertdir: Option<PathBuf>,

            /// Client certificate, PEM
            #[arg(id = concat!($prefix, "cert"), long = concat!($prefix, "cert"),
                  value_name = "FILE", requires = concat!($prefix, "key"))]
            pub cert: Option<PathBuf>,

            /// Private key of the client certificate, PEM
            #[arg(id = concat!($prefix, "key"), long = concat!($prefix, "key"),
                  value_name = "FILE", requires = concat!($prefix, "cert"))]
            pub key: Option<PathBuf>,

            /// Server name to ask for and verify, instead of the host; not for sentinels
            #[arg(id = concat!($prefix, "sni"), long = concat!($prefix, "sni"),
                  value_name = "NAME")]
            pub sni: Option<String>,

            /// Accept any certificate: anybody in between can read and change everything
            #[arg(id = concat!($prefix, "insecure"), long = concat!($prefix, "insecure"))]
            pub insecure: bool,

            /// User name at the sentinels, where they have users of their own
            #[arg(id = concat!($prefix, "sentinel-user"), long = concat!($prefix, "sentinel-user"),
                  value_name = "NAME")]
            pub sentinel_user: Option<String>,

            /// Read the password of the sentinels from FILE; the URL's is that of the server
            #[arg(id = concat!($prefix, "sentinel-password-file"),
                  long = concat!($prefix, "sentinel-password-file"), value_name = "FILE")]
            pub sentinel_password_file: Option<PathBuf>,

            /// Reach the server that a cluster or a sentinel announces as host:port at another
            /// one: behind a tunnel or NAT. Repeatable
            #[arg(id = concat!($prefix, "node-map"), long = concat!($prefix, "node-map"),
                  value_name = "ANNOUNCED=REACHABLE", value_parser = parse_node_map)]
            pub node_map: Vec<(NodeAddress, NodeAddress)>,
        }

        impl $name {
            /// The flags without their prefix.
            pub fn flags(&self) -> ConnectArgs {
                ConnectArgs {
                    user: self.user.clone(),
                    password_file: self.password_file.clone(),
                    askpass: self.askpass,
                    cacert: self.cacert.clone(),
                    cacertdir: self.cacertdir.clone(),
                    cert: self.cert.clone(),
                    key: self.key.clone(),
                    sni: self.sni.clone(),
                    insecure: self.insecure,
                    sentinel_user: self.sentinel_user.clone(),
                    sentinel_password_file: self.sentinel_password_file.clone(),
                    node_map: self.node_map.clone(),
                }
            }
        }
    };
}

server_flags!(
    /// Flags of the one server of a verb.
    ConnectArgs, "", "Connection"
);
server_flags!(
    /// Flags of the source of a verb with two servers.
    SourceArgs, "source-", "Connection to SRC"
);
server_flags!(
    /// Flags of the destination of a verb with two servers.
    DestinationArgs, "dest-", "Connection to DEST"
);

server_flags!(
    /// Flags of the left side of a comparison.
    LeftArgs, "a-", "Connection to A"
);
server_flags!(
    /// Flags of the right side of a comparison.
    RightArgs, "b-", "Connection to B"
);

/// How long to wait for a server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Waiting")]
pub struct TimeoutArgs {
    /// Give up when an answer is due and nothing came for so long
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "60s")]
    pub timeout: Duration,

    /// Give up when connecting takes longer
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    pub connect_timeout: Duration,

    /// When a server answers that it cannot do something right now (BUSY, LOADING, TRYAGAIN,
    /// CLUSTERDOWN, MASTERDOWN; at a destination also NOREPLICAS, and READONLY after a failover), go
    /// on asking for this long; 0 does not ask again
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "2m")]
    pub retry_for: Duration,

    /// After a connection was lost, try so many times in a row to connect again
    #[arg(long, value_name = "N", default_value_t = ConnectOptions::DEFAULT_RETRIES)]
    pub retries: u32,
}

impl Default for TimeoutArgs {
    fn default() -> Self {
        Self {
            timeout: ConnectOptions::DEFAULT_TIMEOUT,
            connect_timeout: ConnectOptions::DEFAULT_CONNECT_TIMEOUT,
            retry_for: ConnectOptions::DEFAULT_RETRY_FOR,
            retries: ConnectOptions::DEFAULT_RETRIES,
        }
    }
}
