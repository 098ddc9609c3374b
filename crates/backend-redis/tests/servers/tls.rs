//! TLS: certificates are checked, by a URL and by a client.

use std::process::Command;

use locks_api::{ErrorKind, Locks};
use locks_backend_redis::redis::{Client, TlsCertificates};
use locks_backend_redis::{RedisBackend, RedisOptions, set_up};
use locks_test_servers::Redis;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::connect;

/// A server that speaks only TLS at its second port, and who vouches for it.
fn server() -> (Redis, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let server = Redis::options()
        .file("cert.pem", &certificate.pem())
        .file("key.pem", &key.serialize_pem())
        .file("ca.pem", &authority.pem())
        .config("tls-cert-file", "{directory}/cert.pem")
        .config("tls-key-file", "{directory}/key.pem")
        .config("tls-ca-cert-file", "{directory}/ca.pem")
        .config("tls-auth-clients", "no")
        .further_port("tls-port")
        .start()
        .unwrap();
    (server, authority.pem())
}

fn url(server: &Redis) -> String {
    format!("rediss://localhost:{}", server.further_port("tls-port").unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_nobody_vouches_for_is_refused() {
    let (server, _) = server();
    let error = connect(&url(&server)).lock("a").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("certificate"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_brings_its_own_certificates() {
    let (server, authority) = server();
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(authority.into_bytes()) };
    let client = Client::build_with_tls(url(&server), certificates).unwrap();
    let options = RedisOptions::default().restart_grace(false);
    let locks = Locks::new(RedisBackend::from_client(&client, options).unwrap());
    locks.lock("a").acquire().await.unwrap().release().await.unwrap();
}

#[test]
fn a_url_trusts_what_the_system_trusts() {
    let (server, _) = server();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tls::entry_with_a_certificate_file", "--ignored"])
        .env("SSL_CERT_FILE", server.directory().unwrap().join("ca.pem"))
        .env("LOCKS_TEST_TLS", url(&server))
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by a_url_trusts_what_the_system_trusts, in an environment of its own"]
async fn entry_with_a_certificate_file() {
    let url = std::env::var("LOCKS_TEST_TLS").unwrap();
    set_up(&url).await.unwrap();
    connect(&url).lock("a").acquire().await.unwrap().release().await.unwrap();
}
