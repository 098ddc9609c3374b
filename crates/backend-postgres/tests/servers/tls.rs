//! TLS: certificates are checked, and every connection is encrypted, in both modes.

use std::time::Duration;

use locks_api::{ErrorKind, Locks};
use locks_backend_postgres::{PostgresBackend, PostgresSessionBackend};
use locks_test_servers::Postgres;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::{PROMPT, number, pause};

/// A server with a certificate for `localhost`, and who vouches for it.
fn server() -> Postgres {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    Postgres::options()
        .file("cert.pem", &certificate.pem())
        .file("key.pem", &key.serialize_pem())
        .file("ca.pem", &authority.pem())
        .config("ssl", "on")
        .config("ssl_cert_file", "{directory}/cert.pem")
        .config("ssl_key_file", "{directory}/key.pem")
        .start()
        .unwrap()
}

fn url(server: &Postgres, host: &str) -> String {
    format!(
        "postgres://postgres@{host}:{}/postgres?sslmode=verify-full&restart_grace=off",
        server.address().port()
    )
}

/// The same with the certificate of who vouches for the server.
fn trusting(server: &Postgres, host: &str) -> String {
    let authority = server.directory().unwrap().join("ca.pem");
    format!("{}&sslrootcert={}", url(server, host), authority.display())
}

fn in_each_mode(url: &str) -> [Locks; 2] {
    let lease = Locks::builder(PostgresBackend::from_url(url).unwrap());
    let session = Locks::builder(PostgresSessionBackend::from_url(&format!("{url}&mode=session")).unwrap());
    [lease, session].map(|locks| locks.store_timeout(Duration::from_secs(2)).build())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_nobody_vouches_for_is_refused() {
    let server = server();
    // One is not known, the other is known by another name.
    for url in [url(&server, "localhost"), trusting(&server, "127.0.0.1")] {
        for locks in in_each_mode(&url) {
            let error = locks.lock("a").try_acquire().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            assert!(format!("{error:?}").contains("certificate"), "{error:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_connection_is_encrypted() {
    let server = server();
    let url = trusting(&server, "localhost");
    for (one, two) in in_each_mode(&url).into_iter().zip(in_each_mode(&url)) {
        let held = one.lock("a").acquire().await.unwrap();
        let lock = two.lock("a");
        let waiter = tokio::spawn(async move { lock.acquire_timeout(PROMPT).await });
        pause(Duration::from_millis(300)).await;
        held.release().await.unwrap();
        waiter.await.unwrap().unwrap().release().await.unwrap();
        let ours = |is_encrypted: &str| {
            format!(
                "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                 WHERE application_name LIKE 'locks%' AND {is_encrypted}"
            )
        };
        assert!(number(server.url(), ours("ssl")).await >= 2);
        assert_eq!(number(server.url(), ours("NOT ssl")).await, 0);
        one.close().await.unwrap();
        two.close().await.unwrap();
    }
}
