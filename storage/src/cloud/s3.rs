//! S3 and its compatibles.

use std::sync::Arc;

use jiff::Timestamp;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use reqwest::Url;

use super::client::{Client, Md5};
use super::objects::CloudBucket;
use super::requests::{self, Signer};
use super::thaw::Thawer;
use super::{credentials, endpoint, prefix, refuse, resumes};
use crate::bucket::Bucket;
use crate::error::{Operation, Result};
use crate::location::Location;
use crate::network::Network;
use crate::object::{ObjectStorage, Setup};
use crate::open::Mode;
use crate::{Capabilities, CreateExclusive, Storage};

const REGION: &str = "us-east-1";
const PART_BYTES: u64 = 64 << 20;
/// No store takes smaller parts.
const PART_BYTES_MIN: u64 = 5 << 20;
const PART_BYTES_MAX: u64 = 5 << 30;

/// Opens a bucket of S3 or a compatible, which has to be there already.
pub(crate) fn open(
    location: &Location,
    network: &Network,
    _buckets_are_never_made: Mode,
) -> Result<Arc<dyn Storage>> {
    let settings = &location.settings;
    let made = store(location, network)?;
    let part_bytes = part_bytes(location).map_err(|cause| refuse(location, cause))?;
    let thawer = Thawer::new(requests_of(location, network.clone(), &made));
    let storage = ObjectStorage::cloud(Setup {
        store: Arc::new(made.store),
        description: location.place.to_string(),
        capabilities: Capabilities {
            create_exclusive: CreateExclusive::Native,
            sorted_listing: true,
            atomic_put: true,
            object_bytes_max: Some(5 << 40),
            thaws: true,
        },
        prefix: prefix(location),
        class: settings.text("storage-class").map(str::to_owned),
        part_bytes: Some(part_bytes),
        retry: network.retry.clone(),
        right,
        thawer: Some(thawer),
    });
    storage.check_bucket()?;
    Ok(Arc::new(storage))
}

/// Opens a bucket of the user's, as it is or as it was at a time.
pub(crate) fn open_bucket(
    location: &Location,
    network: Network,
    as_of: Option<Timestamp>,
) -> Result<Arc<dyn Bucket>> {
    let made = store(location, &network)?;
    let setup = requests_of(location, network, &made);
    Ok(Arc::new(CloudBucket::new(setup, as_of)))
}

/// Gives what requests that are made here are made of.
fn requests_of(location: &Location, network: Network, made: &Made) -> requests::Setup {
    let settings = &location.settings;
    let host = made.place.url.as_str().trim_end_matches('/');
    let mut stored_with = Vec::new();
    for (header, setting) in [
        ("x-amz-storage-class", "storage-class"),
        ("x-amz-server-side-encryption", "encryption"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "kms-key"),
    ] {
        let value = settings.text(setting);
        stored_with.extend(value.map(|value| (header, value.to_owned())));
    }
    if settings.text("kms-key").is_some() && settings.text("encryption").is_none() {
        stored_with.push(("x-amz-server-side-encryption", "aws:kms".to_owned()));
    }
    requests::Setup {
        client: made.client.clone(),
        base: match made.place.has_bucket_in_path {
            true => format!("{host}/{}", location.place.host),
            false => host.to_owned(),
        },
        prefix: prefix(location),
        description: location.place.to_string(),
        signer: Signer::Aws(
            Arc::clone(made.store.credentials()),
            made.region.clone(),
            settings.flag("request-payer").unwrap_or(false),
        ),
        network,
        stored_with,
        with_checksum: settings.flag("checksum").unwrap_or(made.place.is_aws),
        right,
    }
}

/// What a bucket is reached by.
struct Made {
    store: AmazonS3,
    client: Client,
    place: Place,
    region: String,
}

fn store(location: &Location, network: &Network) -> Result<Made> {
    let settings = &location.settings;
    let region = settings.text("region").unwrap_or(REGION);
    let place = Place::new(location, region).map_err(|cause| refuse(location, cause))?;
    let client =
        Client::new(network, &place.url, Md5::Off).map_err(|cause| refuse(location, cause))?;
    let builder = AmazonS3Builder::new()
        .with_bucket_name(&location.place.host)
        .with_region(region)
        .with_endpoint(place.url.as_str().trim_end_matches('/'))
        .with_virtual_hosted_style_request(!place.has_bucket_in_path)
        .with_allow_http(true)
        .with_http_connector(client.clone())
        .with_retry(resumes(network))
        .with_request_payer(settings.flag("request-payer").unwrap_or(false))
        // Deleting many at once would need a checksum that not every compatible knows.
        .with_disable_bulk_delete(true);
    let builder = match settings.flag("checksum").unwrap_or(place.is_aws) {
        true => builder.with_checksum_algorithm(Checksum::SHA256),
        false => builder,
    };
    let builder = encrypted(builder, location).map_err(|cause| refuse(location, cause))?;
    let builder = credentials::add(builder, location, network, client.clone(), region)?;
    let store = builder
        .build()
        .map_err(|error| refuse(location, error.to_string()))?;
    Ok(Made {
        store,
        client,
        place,
        region: region.to_owned(),
    })
}

/// Names the right that an operation takes, as the policies of S3 call it.
fn right(operation: Operation) -> &'static str {
    match operation {
        Operation::Get | Operation::GetRange | Operation::Size => "s3:GetObject",
        Operation::Put | Operation::Create => "s3:PutObject",
        Operation::Delete => "s3:DeleteObject",
        Operation::Thaw => "s3:RestoreObject",
        Operation::Open | Operation::List => "s3:ListBucket",
    }
}

/// Where the requests for a bucket go.
#[derive(Debug)]
struct Place {
    /// The service, with the bucket in its host name unless it stands in the path.
    url: Url,
    has_bucket_in_path: bool,
    is_aws: bool,
}

impl Place {
    fn new(location: &Location, region: &str) -> std::result::Result<Self, String> {
        let settings = &location.settings;
        let bucket = &location.place.host;
        let is_name = |char: char| char.is_ascii_alphanumeric() || char == '-';
        if region.is_empty() || !region.chars().all(is_name) {
            return Err(format!("{region:?} is no region"));
        }
        let own = settings.text("endpoint");
        let given = own.map_or_else(|| aws(region), str::to_owned);
        let allow_http = settings.flag("allow-http").unwrap_or(false);
        let mut url = endpoint("endpoint", &given, allow_http)?;
        let is_aws = url.host_str().is_some_and(is_of_aws);
        // No certificate covers a name with more dots than one; a store of one's own seldom has names
        // for its buckets.
        let default = !is_aws || bucket.contains('.');
        let has_bucket_in_path = settings.flag("path-style").unwrap_or(default);
        if !has_bucket_in_path {
            let host = format!("{bucket}.{}", url.host_str().unwrap_or_default());
            url.set_host(Some(&host)).map_err(|_| {
                "with path-style=false the endpoint has to be a name, no address".to_owned()
            })?;
        }
        Ok(Self {
            url,
            has_bucket_in_path,
            is_aws,
        })
    }
}

fn aws(region: &str) -> String {
    let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("https://s3.{region}.amazonaws.com{suffix}")
}

fn is_of_aws(host: &str) -> bool {
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

fn encrypted(
    builder: AmazonS3Builder,
    location: &Location,
) -> std::result::Result<AmazonS3Builder, String> {
    let settings = &location.settings;
    let key = settings.text("kms-key");
    let kind = match (settings.text("encryption"), key) {
        (Some("AES256"), Some(_)) => {
            return Err("kms-key goes with encryption=aws:kms, and not with AES256".to_owned());
        }
        (Some(kind), _) => kind,
        (None, Some(_)) => "aws:kms",
        (None, None) => return Ok(builder),
    };
    let named = |name: &str| {
        name.parse::<AmazonS3ConfigKey>()
            .map_err(|error| error.to_string())
    };
    let builder = builder.with_config(named("aws_server_side_encryption")?, kind);
    Ok(match key {
        Some(key) => builder.with_config(named("aws_sse_kms_key_id")?, key),
        None => builder,
    })
}

fn part_bytes(location: &Location) -> std::result::Result<u64, String> {
    let part_bytes = location.settings.count("part-size").unwrap_or(PART_BYTES);
    match part_bytes {
        PART_BYTES_MIN..=PART_BYTES_MAX => Ok(part_bytes),
        _ => Err("part-size has to be from 5M to 5G".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use super::*;
    use crate::location::Layers;

    fn location(url: &str, settings: &[(&str, &str)]) -> Location {
        let file: BTreeMap<_, _> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into()))
            .collect();
        let layers = Layers {
            file: Some(&file),
            ..Layers::default()
        };
        Location::new(url, &layers).unwrap()
    }

    fn place(bucket: &str, region: &str, settings: &[(&str, &str)]) -> (String, bool) {
        let found = Place::new(&location(&format!("s3://{bucket}/p"), settings), region).unwrap();
        (found.url.to_string(), found.has_bucket_in_path)
    }

    #[test]
    fn the_bucket_is_in_the_host_at_aws_and_in_the_path_elsewhere() {
        let aws = |url: &str, path| (url.to_owned(), path);
        assert_eq!(
            place("bkt", "eu-west-1", &[]),
            aws("https://bkt.s3.eu-west-1.amazonaws.com/", false)
        );
        assert_eq!(
            place("b.k.t", "eu-west-1", &[]),
            aws("https://s3.eu-west-1.amazonaws.com/", true)
        );
        assert_eq!(
            place("bkt", "cn-north-1", &[("path-style", "true")]),
            aws("https://s3.cn-north-1.amazonaws.com.cn/", true)
        );
        let own = ("endpoint", "https://minio.example:9000");
        assert_eq!(
            place("bkt", "x", &[own]),
            aws("https://minio.example:9000/", true)
        );
        assert_eq!(
            place("bkt", "x", &[own, ("path-style", "false")]),
            aws("https://bkt.minio.example:9000/", false)
        );
        let address = [
            ("endpoint", "http://127.0.0.1:9000"),
            ("path-style", "false"),
        ];
        assert!(
            Place::new(&location("s3://bkt", &address), "x")
                .unwrap_err()
                .contains("address")
        );
        assert!(Place::new(&location("s3://bkt", &[]), "x.evil/").is_err());
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let clash = [("encryption", "AES256"), ("kms-key", "k")];
        assert!(encrypted(AmazonS3Builder::new(), &location("s3://bkt", &clash)).is_err());
        for (size, fits) in [("4M", false), ("5M", true), ("5G", true), ("6G", false)] {
            assert_eq!(
                part_bytes(&location("s3://bkt", &[("part-size", size)])).is_ok(),
                fits
            );
        }
    }
}
