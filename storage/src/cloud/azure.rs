//! Azure Blob Storage.

use std::sync::Arc;

use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};

use super::blobs::Container;
use super::client::{Client, Md5};
use super::requests::{self, Signer};
use super::thaw::Thawer;
use super::{endpoint, prefix, refuse, resumes};
use crate::bucket::Bucket;
use crate::error::{ErrorKind, Operation, Reason, Result, StorageError};
use crate::location::Location;
use crate::network::Network;
use crate::object::{ObjectStorage, Setup};
use crate::open::Mode;
use crate::{Capabilities, CreateExclusive, Storage};

/// Opens a container of Azure Blob Storage, which has to be there already.
pub(crate) fn open(
    location: &Location,
    network: &Network,
    _containers_are_never_made: Mode,
) -> Result<Arc<dyn Storage>> {
    let settings = &location.settings;
    let made = store(location, network)?;
    let thawer = Thawer::new(requests_of(location, network.clone(), &made));
    let storage = ObjectStorage::cloud(Setup {
        store: Arc::new(made.store),
        description: location.place.to_string(),
        capabilities: Capabilities {
            create_exclusive: CreateExclusive::Native,
            // An account with a hierarchical namespace lists folder by folder.
            sorted_listing: false,
            atomic_put: true,
            // What one request can put.
            object_bytes_max: Some(5000 << 20),
            thaws: true,
        },
        prefix: prefix(location),
        class: settings.text("access-tier").map(str::to_owned),
        part_bytes: None,
        retry: network.retry.clone(),
        right,
        thawer: Some(thawer),
    });
    storage.check_bucket()?;
    Ok(Arc::new(storage))
}

/// Opens a container of the user's.
pub(crate) fn open_container(location: &Location, network: Network) -> Result<Arc<dyn Bucket>> {
    let made = store(location, &network)?;
    Ok(Arc::new(Container::new(requests_of(
        location, network, &made,
    ))))
}

/// Gives what requests that are made here are made of.
fn requests_of(location: &Location, network: Network, made: &Made) -> requests::Setup {
    let tier = location.settings.text("access-tier");
    requests::Setup {
        client: made.client.clone(),
        base: format!("{}/{}", made.url, location.place.host),
        prefix: prefix(location),
        description: location.place.to_string(),
        signer: Signer::Azure(Arc::clone(made.store.credentials()), made.account.clone()),
        network,
        stored_with: tier
            .map(|tier| ("x-ms-access-tier", tier.to_owned()))
            .into_iter()
            .collect(),
        with_checksum: false,
        right,
    }
}

/// What a container is reached by.
struct Made {
    store: MicrosoftAzure,
    client: Client,
    account: String,
    /// The URL of the account, without a slash at its end.
    url: String,
}

fn store(location: &Location, network: &Network) -> Result<Made> {
    let settings = &location.settings;
    let wrong = |cause: String| refuse(location, cause);
    let account = settings.text("account").unwrap_or_default();
    let is_name = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit();
    if account.is_empty() {
        return Err(wrong(
            "the setting account is missing: the name of the storage account".to_owned(),
        ));
    }
    if !account.chars().all(is_name) || !(3..=24).contains(&account.len()) {
        return Err(wrong(format!(
            "{account:?} is no storage account: those have 3 to 24 lower-case letters and digits"
        )));
    }
    let own = settings.text("endpoint").map(str::to_owned);
    let given = own.unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
    let allow_http = settings.flag("allow-http").unwrap_or(false);
    let url = endpoint("endpoint", &given, allow_http).map_err(wrong)?;
    let client = Client::new(network, &url, Md5::Compare).map_err(wrong)?;
    let builder = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_container_name(&location.place.host)
        .with_endpoint(url.as_str().trim_end_matches('/').to_owned())
        .with_allow_http(true)
        .with_http_connector(client.clone())
        .with_retry(resumes(network));
    let builder = add_credentials(builder, location, allow_http)?;
    // The crate's own words may repeat a part of the key.
    let store = builder.build().map_err(|_| {
        wrong("the credentials make no sense: see access-key and sas-token".to_owned())
    })?;
    Ok(Made {
        store,
        client,
        account: account.to_owned(),
        url: url.as_str().trim_end_matches('/').to_owned(),
    })
}

fn add_credentials(
    builder: MicrosoftAzureBuilder,
    location: &Location,
    allow_http: bool,
) -> Result<MicrosoftAzureBuilder> {
    let settings = &location.settings;
    let wrong = |cause: String| refuse(location, cause);
    let secret = |name: &str| settings.secret(name).map_err(wrong);
    let text = |name: &str| settings.text(name).unwrap_or_default();
    let kind = |builder: MicrosoftAzureBuilder, kind: &str| builder.with_credential_type(kind);
    if settings.flag("managed-identity") == Some(true) {
        let mut builder = kind(builder, "managed_identity");
        if let Some(given) = settings.text("identity-endpoint") {
            let url = endpoint("identity-endpoint", given, allow_http).map_err(wrong)?;
            builder = builder.with_msi_endpoint(url.as_str());
        }
        if let Some(id) = settings.text("client-id") {
            builder = builder.with_client_id(id);
        }
        return Ok(builder);
    }
    match settings.first_of(&["access-key", "sas-token", "client-secret"]) {
        Some("access-key") => {
            let key = secret("access-key")?.unwrap_or_default();
            Ok(kind(builder, "access_key").with_access_key(key.as_str()))
        }
        Some("sas-token") => {
            let token = secret("sas-token")?.unwrap_or_default();
            Ok(kind(builder, "sas_token").with_config(AzureConfigKey::SasKey, token.as_str()))
        }
        Some(_) => {
            let client_secret = secret("client-secret")?.unwrap_or_default();
            let (tenant, client) = (text("tenant-id"), text("client-id"));
            if tenant.is_empty() || client.is_empty() {
                return Err(wrong("client-secret needs tenant-id and client-id".to_owned()));
            }
            let mut builder = kind(builder, "client_secret").with_client_secret_authorization(
                client,
                client_secret.as_str(),
                tenant,
            );
            if let Some(given) = settings.text("authority-host") {
                let url = endpoint("authority-host", given, allow_http).map_err(wrong)?;
                builder = builder.with_authority_host(url.as_str().trim_end_matches('/'));
            }
            Ok(builder)
        }
        None => Err(StorageError::new(
            Operation::Open,
            location.place.to_string(),
            "",
            ErrorKind::Denied,
            "there are no credentials: set access-key, sas-token, client-secret or managed-identity=true",
        )
        .because(Reason::NoCredentials)),
    }
}

/// Names the right that an operation takes, as Azure's roles call it.
fn right(operation: Operation) -> &'static str {
    match operation {
        Operation::Put | Operation::Create | Operation::Thaw => {
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write"
        }
        Operation::Delete => {
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete"
        }
        _ => "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
    }
}
