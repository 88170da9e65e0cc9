//! Azure Blob Storage against Azurite.

/// Against a server that takes long to install.
mod heavy {
    use std::process::Command;
    use std::sync::Arc;

    use bytes::Bytes;
    use larder_storage::error::{ErrorKind, Reason, Result};
    use larder_storage::{Mode, Storage, contract};

    use super::super::cloud::{
        Proxy, assert_reason, fresh, output, recipe, refused, survives_faults,
    };
    use super::super::servers::{self, Certificates, Server, free_port, node};

    const ACCOUNT: &str = "devstoreaccount1";
    /// The one that Azurite is known by.
    const KEY: &str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    fn azurite(arguments: &[&str]) -> Server {
        Server::start(|folder, port| {
            let mut command = Command::new(node("azurite-blob"));
            command.args(["--silent", "--disableTelemetry", "--skipApiVersionCheck"]);
            command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
            command.arg("-l").arg(folder).args(arguments);
            command
        })
    }

    /// Makes the container `test`, and gives a shared access signature.
    fn prepare(endpoint: &str) -> String {
        output(recipe("mkaz.py").args([ACCOUNT, KEY, endpoint, "test"]))
            .trim()
            .to_owned()
    }

    fn open_at(endpoint: &str, url: &str, settings: &[(&str, &str)]) -> Result<Arc<dyn Storage>> {
        let endpoint = format!("{endpoint}/{ACCOUNT}");
        let mut all = vec![
            ("endpoint", endpoint.as_str()),
            ("account", ACCOUNT),
            ("retry-for", "60s"),
        ];
        all.extend(settings);
        servers::open(url, &all, Mode::Open)
    }

    fn at(port: u16) -> String {
        format!("http://127.0.0.1:{port}")
    }

    #[test]
    fn azurite_keeps_the_contract_with_key_and_signature() {
        let server = azurite(&[]);
        let sas = prepare(&at(server.port));
        let next = fresh("az://test/deep");
        contract::run(&|| open_at(&at(server.port), &next(), &[("access-key", KEY)]).unwrap());
        let storage = open_at(&at(server.port), "az://test/sas", &[("sas-token", &sas)]).unwrap();
        storage.put("a/b", Bytes::from_static(b"x")).unwrap();
        assert_eq!(storage.get("a/b", 9).unwrap(), "x");
    }

    #[test]
    fn what_cannot_be_opened_is_told_apart() {
        let server = azurite(&[]);
        prepare(&at(server.port));
        let key = ("access-key", KEY);
        let open = |url: &str, settings: &[(&str, &str)]| {
            refused(open_at(&at(server.port), url, settings))
        };
        let wrong = ("access-key", "aHVudGVyMg==");
        assert_reason(
            &open("az://test/p", &[wrong]),
            ErrorKind::Denied,
            Reason::WrongSecret,
        );
        let error = open("az://missing/p", &[key]);
        assert_reason(&error, ErrorKind::NotFound, Reason::NoBucket);
        let error = refused(open_at(&at(free_port()), "az://test/p", &[key]));
        assert_reason(&error, ErrorKind::Permanent, Reason::Refused);
        assert_reason(
            &open("az://test/p", &[]),
            ErrorKind::Denied,
            Reason::NoCredentials,
        );
    }

    #[test]
    fn a_client_with_its_secret_is_let_in_over_tls() {
        let certificates = Certificates::make();
        let (pem, key) = (certificates.path("srv.pem"), certificates.path("srv.key"));
        let server = azurite(&["--cert", &pem, "--key", &key, "--oauth", "basic"]);
        let endpoint = format!("https://127.0.0.1:{}", server.port);
        prepare(&endpoint);
        let oauth = Server::start(|_, port| {
            let mut command = recipe("fakeoauth.py");
            command.arg(port.to_string());
            command
        });
        let (authority, ca) = (at(oauth.port), certificates.path("ca.pem"));
        let open = |secret: &str| {
            let settings = [
                ("tenant-id", "t"),
                ("client-id", "c"),
                ("client-secret", secret),
                ("authority-host", &authority),
                ("ca-certificate", &ca),
            ];
            open_at(&endpoint, "az://test/p", &settings)
        };
        let storage = open("good").unwrap();
        storage.put("a/b", Bytes::from_static(b"x")).unwrap();
        let error = refused(open("hunter2"));
        assert_reason(&error, ErrorKind::Denied, Reason::WrongSecret);
        let error = refused(open_at(&endpoint, "az://test/p", &[("access-key", KEY)]));
        assert_reason(&error, ErrorKind::Permanent, Reason::Certificate);
    }

    #[test]
    fn every_fault_is_survived() {
        let server = azurite(&[]);
        prepare(&at(server.port));
        let proxy = Proxy::before(server.port);
        let settings = [
            ("access-key", KEY),
            ("read-timeout", "2s"),
            ("access-tier", "Cool"),
        ];
        let storage = open_at(&at(proxy.0.port), "az://test/p", &settings).unwrap();
        survives_faults(&proxy, &*storage);
        let pack = Bytes::from([b"\x89LARDER\n\x01\x03".as_slice(), &[0; 54]].concat());
        proxy.break_next("flip", 1);
        storage.put("packs/ab/ab", pack.clone()).unwrap();
        assert_eq!(proxy.broken(), 1);
        assert_eq!(storage.get("packs/ab/ab", 99).unwrap(), pack);
        let tiers = proxy.headers("PUT", "packs/ab/ab", "x-ms-access-tier");
        assert_eq!(tiers, vec![Some("Cool".to_owned()); 2]);
        assert_eq!(
            proxy.headers("PUT", "created", "x-ms-access-tier").pop(),
            Some(None)
        );
    }

    #[test]
    fn a_repository_lives_in_a_container() {
        let server = azurite(&[]);
        prepare(&at(server.port));
        let endpoint = format!("{}/{ACCOUNT}", at(server.port));
        let settings = [
            ("endpoint", endpoint.as_str()),
            ("account", ACCOUNT),
            ("access-key", KEY),
        ];
        crate::life::live("az://test/larder", &settings);
    }
}
