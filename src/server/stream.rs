//! The bytes between us and a server: TCP, TLS over TCP, or a Unix socket.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::ServerError;
use crate::endpoint::{ConnectOptions, TlsOptions, Transport};
use crate::host::{self, Host, LinkId};

/// An open connection, no more than its bytes.
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// Unix socket.
    Unix(UnixStream),
    /// A connection of a simulated world.
    Simulated(SimulatedStream),
}

/// See [`Stream::Simulated`]; closed when it is dropped, as a socket is.
pub struct SimulatedStream(LinkId);

impl SimulatedStream {
    /// Asks the world that this thread runs in.
    fn with<T>(&self, act: impl FnOnce(&dyn Host, LinkId) -> io::Result<T>) -> io::Result<T> {
        match host::simulated() {
            Some(host) => act(host.as_ref(), self.0),
            None => Err(io::Error::other("the simulated world is over")),
        }
    }
}

impl Drop for SimulatedStream {
    fn drop(&mut self) {
        let _ = self.with(|host, link| {
            host.close(link);
            Ok(())
        });
    }
}

impl Stream {
    /// Connects as `options` say. Names with several addresses are tried in turn within the
    /// connect timeout.
    ///
    /// # Errors
    /// [`ServerError::Connect`].
    pub fn open(options: &ConnectOptions) -> Result<Self, ServerError> {
        let refused = |reason: String| ServerError::Connect {
            address: options.address.to_string(),
            reason,
        };
        let stream = match &options.address {
            Transport::Sentinel(_) => {
                // `sentinel::open` turns it into an address before it comes here.
                return Err(refused("sentinels have to be asked first".to_owned()));
            }
            address if let Some(host) = host::simulated() => {
                let link = host.connect(address, options);
                Stream::Simulated(SimulatedStream(
                    link.map_err(|error| refused(plain(&error)))?,
                ))
            }
            Transport::Tcp { host, port } => {
                Stream::Tcp(connect_tcp(host, *port, options).map_err(refused)?)
            }
            Transport::Tls { host, port } => {
                let socket = connect_tcp(host, *port, options).map_err(refused)?;
                Stream::Tls(Box::new(handshake(socket, host, options).map_err(refused)?))
            }
            Transport::Unix { path } => {
                Stream::Unix(UnixStream::connect(path).map_err(|error| refused(plain(&error)))?)
            }
        };
        stream
            .set_timeout(options.timeout)
            .map_err(|error| refused(plain(&error)))?;
        Ok(stream)
    }

    /// Ends the connection in both directions; errors do not matter any more.
    pub fn close(&mut self) {
        use std::net::Shutdown;
        let _ = match self {
            Stream::Tcp(socket) => socket.shutdown(Shutdown::Both),
            Stream::Unix(socket) => socket.shutdown(Shutdown::Both),
            Stream::Simulated(stream) => stream.with(|host, link| {
                host.close(link);
                Ok(())
            }),
            Stream::Tls(tls) => {
                tls.conn.send_close_notify();
                let _ = tls.flush();
                tls.sock.shutdown(Shutdown::Both)
            }
        };
    }

    /// The address at the other end; `None` for a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            Stream::Tcp(socket) => socket.peer_addr().ok(),
            Stream::Tls(tls) => tls.sock.peer_addr().ok(),
            Stream::Unix(_) | Stream::Simulated(_) => None,
        }
    }

    /// The connection of a simulated world that this is, if so.
    pub fn link(&self) -> Option<LinkId> {
        match self {
            Stream::Simulated(SimulatedStream(link)) => Some(*link),
            Stream::Tcp(_) | Stream::Tls(_) | Stream::Unix(_) => None,
        }
    }

    /// Whether the socket has bytes, its end, or an error, for a read.
    pub fn is_readable(&self) -> bool {
        let socket = match self {
            Stream::Tcp(socket) => socket.as_fd(),
            Stream::Tls(tls) => tls.sock.as_fd(),
            Stream::Unix(socket) => socket.as_fd(),
            Stream::Simulated(stream) => {
                let asked = stream.with(|host, link| Ok(host.is_readable(link)));
                return asked.unwrap_or(true);
            }
        };
        let mut asked = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
        // An error of the question is one of the read, too.
        poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Sets how long a read or a write may block.
    ///
    /// # Errors
    /// The socket's.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
        match self {
            Stream::Simulated(stream) => stream.with(|host, link| {
                host.set_timeout(link, timeout.unwrap_or_default());
                Ok(())
            }),
            Stream::Unix(socket) => {
                socket.set_read_timeout(timeout)?;
                socket.set_write_timeout(timeout)
            }
            Stream::Tcp(socket) => set_tcp_timeout(socket, timeout),
            Stream::Tls(tls) => set_tcp_timeout(&tls.sock, timeout),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(socket) => socket.read(out),
            Stream::Tls(tls) => tls.read(out),
            Stream::Unix(socket) => socket.read(out),
            Stream::Simulated(stream) => stream.with(|host, link| host.read(link, out)),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(socket) => socket.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
            Stream::Unix(socket) => socket.write(bytes),
            Stream::Simulated(stream) => stream.with(|host, link| host.write(link, bytes)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(socket) => socket.flush(),
            Stream::Tls(tls) => tls.flush(),
            Stream::Unix(socket) => socket.flush(),
            Stream::Simulated(_) => Ok(()),
        }
    }
}

fn set_tcp_timeout(socket: &TcpStream, timeout: Option<Duration>) -> io::Result<()> {
    socket.set_read_timeout(timeout)?;
    socket.set_write_timeout(timeout)
}

fn connect_tcp(host: &str, port: u16, options: &ConnectOptions) -> Result<TcpStream, String> {
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("the name does not resolve ({})", plain(&error)))?;
    let deadline = host::now() + options.connect_timeout;
    let mut last = "the name has no address".to_owned();
    for address in addresses {
        let left = deadline
            .saturating_duration_since(host::now())
            .max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&address, left) {
            Ok(socket) => {
                prepare(&socket).map_err(|error| plain(&error))?;
                socket
                    .set_read_timeout(Some(left))
                    .map_err(|error| plain(&error))?;
                return Ok(socket);
            }
            Err(error) => last = plain(&error),
        }
    }
    Err(last)
}

/// No delay, since we batch ourselves; keepalive, so that a peer that went away is noticed within a
/// minute, also while nothing is due, and so that no firewall in between forgets the connection.
fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// An I/O error in words, without Rust's "(os error 111)".
pub fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused (is a server listening there?)".to_owned()
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer in time".to_owned(),
        io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        _ => {
            let text = error.to_string();
            if let Some(text) = client_certificate(&text) {
                return text;
            }
            match text.find(" (os error") {
                Some(at) => text[..at].to_owned(),
                None => text,
            }
        }
    }
}

/// What a server's TLS alert says of our certificate. In TLS 1.3 it comes after the handshake, with
/// the first read (RFC 8446, 6.2).
fn client_certificate(text: &str) -> Option<String> {
    let alert = text.split("received fatal alert: ").nth(1)?;
    match alert {
        "CertificateRequired" => {
            Some("the server demands a client certificate (--cert and --key)".to_owned())
        }
        "BadCertificate"
        | "UnsupportedCertificate"
        | "CertificateRevoked"
        | "CertificateExpired"
        | "CertificateUnknown"
        | "UnknownCA"
        | "DecryptError" => Some(format!(
            "the server does not accept our client certificate ({alert}; --cert, --key)"
        )),
        _ => None,
    }
}

fn handshake(
    socket: TcpStream,
    host: &str,
    options: &ConnectOptions,
) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
    let config = tls_config(&options.tls)?;
    let name = options.tls.sni.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned()).map_err(|_| {
        format!(
            "\"{}\" is not a name that a certificate can be checked for",
            name.escape_debug()
        )
    })?;
    let client =
        ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    let mut tls = StreamOwned::new(client, socket);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock).map_err(|error| {
            if is_too_old(&error) {
                return format!(
                    "TLS: the server speaks only versions older than TLS 1.2, and 1.2 is the minimum \
                     here (let it allow more, such as tls-protocols \"TLSv1.2 TLSv1.3\"; {})",
                    plain(&error)
                );
            }
            let advice = if error.to_string().contains("certificate") {
                " (--cacert names the authority to trust, --insecure trusts anybody)"
            } else {
                ""
            };
            format!("TLS: {}{advice}", plain(&error))
        })?;
    }
    Ok(tls)
}

/// Whether a handshake failed because there is no common version: the server's alert, or what it
/// answered.
fn is_too_old(error: &io::Error) -> bool {
    use rustls::{AlertDescription, Error, PeerIncompatible};
    let inner = error.get_ref();
    match inner.and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => *alert == AlertDescription::ProtocolVersion,
        Some(Error::PeerIncompatible(why)) => matches!(
            why,
            PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        ),
        _ => false,
    }
}

fn tls_config(options: &TlsOptions) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if options.insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(insecure::TrustAnybody(provider)))
    } else {
        builder.with_root_certificates(roots(options)?)
    };
    match (&options.cert, &options.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| {
                format!("the private key {} cannot be read: {error}", key.display())
            })?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("the client certificate is not usable: {error}"))
        }
        _ => Err("--cert and --key belong together".to_owned()),
    }
}

fn roots(options: &TlsOptions) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let mut files = Vec::new();
    files.extend(options.ca_file.clone());
    if let Some(dir) = &options.ca_dir {
        let entries = std::fs::read_dir(dir)
            .map_err(|error| format!("{} cannot be read: {}", dir.display(), plain(&error)))?;
        files.extend(
            entries
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .filter(|path| path.is_file()),
        );
    }
    if options.ca_file.is_none() && options.ca_dir.is_none() {
        let native = rustls_native_certs::load_native_certs();
        for certificate in native.certs {
            // One unreadable certificate of the system must not cost all the others.
            let _ = store.add(certificate);
        }
        if store.is_empty() {
            return Err(
                "this machine has no trusted certificates; name one with --cacert".to_owned(),
            );
        }
        return Ok(store);
    }
    for file in &files {
        for certificate in certificates(file)? {
            store.add(certificate).map_err(|error| {
                format!(
                    "{} holds a certificate that cannot be trusted: {error}",
                    file.display()
                )
            })?;
        }
    }
    if store.is_empty() {
        return Err("no certificate found where --cacert or --cacertdir point".to_owned());
    }
    Ok(store)
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| format!("the certificate {} cannot be read: {error}", path.display()))
}

/// `--insecure`: no verification of who the peer is. Kept apart so that nobody uses it by chance.
mod insecure {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub struct TrustAnybody(pub Arc<CryptoProvider>);

    impl ServerCertVerifier for TrustAnybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(
                message,
                cert,
                dss,
                &self.0.signature_verification_algorithms,
            )
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(
                message,
                cert,
                dss,
                &self.0.signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}
