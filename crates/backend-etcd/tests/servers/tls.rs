//! TLS: certificates are checked.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use locks_api::ErrorKind;
use locks_test_servers::Etcd;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::connect;

/// What speaks TLS before a member, and who vouches for it.
async fn tls_before(member: SocketAddr) -> (u16, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let (Ok(mut from), Ok(mut to)) =
                    (acceptor.accept(stream).await, TcpStream::connect(member).await)
                {
                    // Whoever hangs up ends both.
                    drop(copy_bidirectional(&mut from, &mut to).await);
                }
            });
        }
    });
    (port, authority.pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_nobody_vouches_for_is_refused() {
    let server = Etcd::start().unwrap();
    let (port, _) = tls_before(server.address()).await;
    let error = connect(&format!("etcds://localhost:{port}")).lock("a").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(format!("{error:?}").contains("certificate"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_trusts_what_the_system_trusts() {
    let server = Etcd::start().unwrap();
    let (port, authority) = tls_before(server.address()).await;
    let file = server.directory().unwrap().join("ca.pem");
    fs::write(&file, authority).unwrap();
    let status = tokio::task::spawn_blocking(move || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tls::entry_with_a_certificate_file", "--ignored"])
            .env("SSL_CERT_FILE", file)
            .env("LOCKS_TEST_TLS", format!("etcds://localhost:{port}"))
            .status()
            .unwrap()
    });
    assert!(status.await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by a_url_trusts_what_the_system_trusts, in an environment of its own"]
async fn entry_with_a_certificate_file() {
    let url = std::env::var("LOCKS_TEST_TLS").unwrap();
    connect(&url).lock("a").acquire().await.unwrap().release().await.unwrap();
}
