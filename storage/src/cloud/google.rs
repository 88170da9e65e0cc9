//! Google Cloud Storage.

use std::sync::Arc;

use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};

use super::client::{Client, Md5};
use super::objects::CloudBucket;
use super::requests::{self, Signer};
use super::{endpoint, prefix, refuse, resumes};
use crate::bucket::Bucket;
use crate::error::{Operation, Result};
use crate::location::Location;
use crate::network::Network;
use crate::object::{ObjectStorage, Setup};
use crate::open::Mode;
use crate::{Capabilities, CreateExclusive, Storage};

const SERVICE: &str = "https://storage.googleapis.com";

/// Opens a bucket of Google Cloud Storage, which has to be there already.
pub(crate) fn open(
    location: &Location,
    network: &Network,
    _buckets_are_never_made: Mode,
) -> Result<Arc<dyn Storage>> {
    let settings = &location.settings;
    let (store, _, _) = store(location, network)?;
    let storage = ObjectStorage::cloud(Setup {
        store: Arc::new(store),
        description: location.place.to_string(),
        capabilities: Capabilities {
            create_exclusive: CreateExclusive::Native,
            sorted_listing: true,
            atomic_put: true,
            object_bytes_max: Some(5 << 40),
            thaws: false,
        },
        prefix: prefix(location),
        class: settings.text("storage-class").map(str::to_owned),
        part_bytes: None,
        retry: network.retry.clone(),
        right,
        thawer: None,
    });
    storage.check_bucket()?;
    Ok(Arc::new(storage))
}

/// Opens a bucket of the user's.
pub(crate) fn open_bucket(location: &Location, network: Network) -> Result<Arc<dyn Bucket>> {
    let (store, client, url) = store(location, &network)?;
    let class = location.settings.text("storage-class");
    let setup = requests::Setup {
        client,
        base: format!("{url}/{}", location.place.host),
        prefix: prefix(location),
        description: location.place.to_string(),
        signer: Signer::Google(Arc::clone(store.credentials())),
        network,
        stored_with: class
            .map(|class| ("x-goog-storage-class", class.to_owned()))
            .into_iter()
            .collect(),
        with_checksum: false,
        right,
    };
    Ok(Arc::new(CloudBucket::new(setup, None)))
}

/// Gives what a bucket is reached by, and the service's URL without a slash at its end.
fn store(location: &Location, network: &Network) -> Result<(GoogleCloudStorage, Client, String)> {
    let settings = &location.settings;
    let wrong = |cause: String| refuse(location, cause);
    let given = settings.text("endpoint").unwrap_or(SERVICE);
    let allow_http = settings.flag("allow-http").unwrap_or(false);
    let url = endpoint("endpoint", given, allow_http).map_err(wrong)?;
    let client = Client::new(network, &url, Md5::Send).map_err(wrong)?;
    let builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&location.place.host)
        .with_base_url(url.as_str().trim_end_matches('/'))
        .with_http_connector(client.clone())
        .with_retry(resumes(network));
    let (builder, of) = add_credentials(builder, location).map_err(wrong)?;
    // The crate's own words may repeat a part of the key.
    let store = builder.build().map_err(|_| {
        wrong(format!(
            "the credentials of {of} are no JSON of Google's, or cannot be read"
        ))
    })?;
    Ok((store, client, url.as_str().trim_end_matches('/').to_owned()))
}

/// Adds the credentials, and names where they come from.
fn add_credentials(
    builder: GoogleCloudStorageBuilder,
    location: &Location,
) -> std::result::Result<(GoogleCloudStorageBuilder, &'static str), String> {
    let settings = &location.settings;
    // What stands closer to larder wins; of two that stand together the more exact one.
    let first = settings.first_of(&[
        "service-account-key",
        "service-account-file",
        "application-credentials",
    ]);
    Ok(match first {
        Some("service-account-key") => {
            let key = settings.secret("service-account-key")?.unwrap_or_default();
            (
                builder.with_service_account_key(key.as_str()),
                "service-account-key",
            )
        }
        Some("service-account-file") => {
            let path = settings.text("service-account-file").unwrap_or_default();
            (
                builder.with_service_account_path(path),
                "service-account-file",
            )
        }
        Some(_) => {
            let path = settings.text("application-credentials").unwrap_or_default();
            (
                builder.with_application_credentials(path),
                "application-credentials",
            )
        }
        None => (
            builder,
            "this machine (gcloud's own file, or the instance's service account)",
        ),
    })
}

/// Names the right that an operation takes, as Google calls it.
fn right(operation: Operation) -> &'static str {
    match operation {
        Operation::Get | Operation::GetRange | Operation::Size => "storage.objects.get",
        Operation::Thaw => "storage.objects.update",
        Operation::Put => "storage.objects.create (and storage.objects.delete to replace)",
        Operation::Create => "storage.objects.create",
        Operation::Delete => "storage.objects.delete",
        Operation::Open | Operation::List => "storage.objects.list",
    }
}
