//! A storage over the object_store crate, and the one runtime that it needs.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload,
};

use super::error::{ErrorKind, Operation, Reason, Result, StorageError};
use super::retry::Retry;
use super::thaw::{Readiness, Thaw, Warmth};
use super::{
    Capabilities, CreateExclusive, ObjectInfo, Storage, check_folder, check_name, cloud,
    is_valid_name, runtime,
};

/// The most parts of an upload: what the strictest compatibles of S3 take.
const PARTS_MAX: u64 = 1000;

/// A storage over one of object_store's own implementations.
pub struct ObjectStorage {
    store: Arc<dyn ObjectStore>,
    description: String,
    capabilities: Capabilities,
    /// What stands before all names: nothing, or a folder with its slash.
    prefix: String,
    cloud: Option<Cloud>,
}

/// What only storages over a network have.
struct Cloud {
    pages: Arc<dyn PaginatedListStore>,
    class: Option<String>,
    part_bytes: Option<u64>,
    retry: Retry,
    right: fn(Operation) -> &'static str,
    thawer: Option<cloud::Thawer>,
}

/// What a storage over a network is made of.
pub(super) struct Setup<S> {
    pub store: Arc<S>,
    pub description: String,
    pub capabilities: Capabilities,
    /// What stands before all names: nothing, or a folder with its slash.
    pub prefix: String,
    /// The storage class of data packs.
    pub class: Option<String>,
    /// Objects that are larger are put in parts of this size.
    pub part_bytes: Option<u64>,
    /// How a page of a listing is tried again; everything else is tried again above.
    pub retry: Retry,
    /// Names the right that an operation takes of the user.
    pub right: fn(Operation) -> &'static str,
    /// What brings objects back from archives, where the storage has such.
    pub thawer: Option<cloud::Thawer>,
}

impl ObjectStorage {
    /// Makes a storage that lives in memory and vanishes with the value.
    #[must_use]
    pub fn memory() -> Self {
        let capabilities = Capabilities {
            create_exclusive: CreateExclusive::Native,
            sorted_listing: true,
            atomic_put: true,
            object_bytes_max: None,
            thaws: false,
        };
        let store = Arc::new(object_store::memory::InMemory::new());
        Self::new(store, "memory".to_owned(), capabilities)
    }

    /// Wraps an implementation of object_store that is no further away than this machine.
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        description: String,
        capabilities: Capabilities,
    ) -> Self {
        Self {
            store,
            description,
            capabilities,
            prefix: String::new(),
            cloud: None,
        }
    }

    /// Makes a storage over a network.
    pub(super) fn cloud<S: ObjectStore + PaginatedListStore>(setup: Setup<S>) -> Self {
        Self {
            store: Arc::<S>::clone(&setup.store),
            description: setup.description,
            capabilities: setup.capabilities,
            prefix: setup.prefix,
            cloud: Some(Cloud {
                pages: setup.store,
                class: setup.class,
                part_bytes: setup.part_bytes,
                retry: setup.retry,
                right: setup.right,
                thawer: setup.thawer,
            }),
        }
    }

    /// Asks for one name, which tells whether bucket, credentials and the right to list are there.
    pub(super) fn check_bucket(&self) -> Result<()> {
        let Some(cloud) = &self.cloud else {
            return Ok(());
        };
        let options = || PaginatedListOptions {
            max_keys: Some(1),
            ..PaginatedListOptions::default()
        };
        let ask = || {
            let page = cloud.pages.list_paginated(Some(&self.prefix), options());
            self.run(Operation::Open, "", page)
        };
        cloud.retry.run(ask).map(drop)
    }

    fn run<T>(
        &self,
        operation: Operation,
        name: &str,
        future: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        let outcome = runtime::block_on(future)
            .map_err(|cause| self.error(operation, name, ErrorKind::Transient, &cause))?;
        outcome.map_err(|error| {
            let right = self
                .cloud
                .as_ref()
                .map_or("", |cloud| (cloud.right)(operation));
            cloud::explain(operation, &self.description, name, right, &error)
        })
    }

    fn path(&self, operation: Operation, name: &str) -> Result<Path> {
        check_name(operation, &self.description, name)?;
        Path::parse(format!("{}{name}", self.prefix))
            .map_err(|error| self.error(operation, name, ErrorKind::Permanent, &error.to_string()))
    }

    fn error(
        &self,
        operation: Operation,
        name: &str,
        kind: ErrorKind,
        cause: &str,
    ) -> StorageError {
        StorageError::new(operation, self.description.as_str(), name, kind, cause)
    }

    fn write(&self, operation: Operation, name: &str, bytes: Bytes, mode: PutMode) -> Result<()> {
        let path = self.path(operation, name)?;
        let attributes = self.attributes(name, &bytes);
        let part_bytes = self.cloud.as_ref().and_then(|cloud| cloud.part_bytes);
        if let Some(part_bytes) = part_bytes
            && bytes.len() as u64 > part_bytes
            // Parts know no create.
            && matches!(mode, PutMode::Overwrite)
        {
            let upload = self.upload(&path, bytes, attributes, part_bytes);
            return self.run(operation, name, upload);
        }
        let options = PutOptions {
            mode,
            attributes,
            ..PutOptions::default()
        };
        let put = self.store.put_opts(&path, PutPayload::from(bytes), options);
        self.run(operation, name, put).map(drop)
    }

    fn attributes(&self, name: &str, bytes: &Bytes) -> Attributes {
        let mut attributes = Attributes::new();
        let class = self.cloud.as_ref().and_then(|cloud| cloud.class.as_ref());
        if let Some(class) = class
            && is_data_pack(name, bytes)
        {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        attributes
    }

    /// Writes an object in parts; it appears whole when the last one is there.
    async fn upload(
        &self,
        path: &Path,
        mut bytes: Bytes,
        attributes: Attributes,
        part_bytes: u64,
    ) -> object_store::Result<()> {
        let options = PutMultipartOptions {
            attributes,
            ..PutMultipartOptions::default()
        };
        let part_bytes = part_bytes.max((bytes.len() as u64).div_ceil(PARTS_MAX));
        let part_bytes = usize::try_from(part_bytes).unwrap_or(usize::MAX);
        let mut upload = self.store.put_multipart_opts(path, options).await?;
        while !bytes.is_empty() {
            let part = bytes.split_to(part_bytes.min(bytes.len()));
            if let Err(error) = upload.put_part(part.into()).await {
                // What is left is paid for; if this fails, too, the bucket's rules clean up.
                let _ = upload.abort().await;
                return Err(error);
            }
        }
        match upload.complete().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    /// Reads exactly one range; `Err(Ok(size))` where the object is too short for it.
    fn read_range(
        &self,
        name: &str,
        path: &Path,
        range: std::ops::Range<u64>,
    ) -> std::result::Result<Bytes, Result<u64>> {
        let operation = Operation::GetRange;
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let got = self.run(operation, name, self.store.get_opts(path, options));
        let found = got.map_err(Err)?;
        let size_bytes = found.meta.size;
        if found.range != range {
            return Err(Ok(size_bytes));
        }
        let bytes = self.body(operation, name, found).map_err(Err)?;
        if bytes.len() as u64 != range.end - range.start {
            return Err(Ok(size_bytes));
        }
        Ok(bytes)
    }

    fn body(&self, operation: Operation, name: &str, found: GetResult) -> Result<Bytes> {
        self.run(operation, name, found.bytes())
    }

    /// Gives one page of a listing, tried again by itself: a long listing would never end if each
    /// failure began it anew.
    fn page(
        &self,
        cloud: &Cloud,
        folder: &str,
        token: Option<&str>,
    ) -> Result<PaginatedListResult> {
        let prefix = match folder {
            "" => self.prefix.clone(),
            folder => format!("{}{folder}/", self.prefix),
        };
        cloud.retry.run(|| {
            let options = PaginatedListOptions {
                page_token: token.map(str::to_owned),
                ..PaginatedListOptions::default()
            };
            let prefix = Some(prefix.as_str()).filter(|prefix| !prefix.is_empty());
            let page = cloud.pages.list_paginated(prefix, options);
            self.run(Operation::List, folder, page)
        })
    }

    fn list_pages(
        &self,
        cloud: &Cloud,
        folder: &str,
        visit: &mut dyn FnMut(ObjectInfo) -> Result<()>,
    ) -> Result<()> {
        let refuse = |cause: &str| {
            self.error(Operation::List, folder, ErrorKind::Permanent, cause)
                .because(Reason::Protocol)
        };
        let mut token = None;
        let mut last = String::new();
        loop {
            let page = self.page(cloud, folder, token.as_deref())?;
            for object in page.result.objects {
                let Some(info) = self.info(&object) else {
                    continue;
                };
                if self.capabilities.sorted_listing {
                    if info.name <= last {
                        return Err(refuse("the server lists names in no order"));
                    }
                    last.clone_from(&info.name);
                }
                visit(info)?;
            }
            match page.page_token {
                None => return Ok(()),
                same if same == token => {
                    return Err(refuse("the server gives the same page again and again"));
                }
                next => token = next,
            }
        }
    }

    /// Gives an entry of a listing, if it can be an object of a repository.
    fn info(&self, object: &object_store::ObjectMeta) -> Option<ObjectInfo> {
        let name = object.location.as_ref().strip_prefix(&self.prefix)?;
        is_valid_name(name).then(|| ObjectInfo {
            name: name.to_owned(),
            size_bytes: object.size,
        })
    }
}

/// Tells whether an object is a data pack: its name says pack, and the header that every object has,
/// unencrypted, says which kind (SPEC, section 2).
pub(super) fn is_data_pack(name: &str, bytes: &[u8]) -> bool {
    const MAGIC: &[u8] = b"\x89LARDER\n";
    const KIND_AT: usize = 9;
    const DATA_PACK: u8 = 3;
    name.starts_with("packs/") && bytes.starts_with(MAGIC) && bytes.get(KIND_AT) == Some(&DATA_PACK)
}

impl Storage for ObjectStorage {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        let operation = Operation::Get;
        let path = self.path(operation, name)?;
        let found = self.run(operation, name, self.store.get(&path))?;
        let size_bytes = found.meta.size;
        if size_bytes > max_bytes {
            let cause = format!("it has {size_bytes} bytes, and may have {max_bytes}");
            return Err(self.error(operation, name, ErrorKind::Oversized, &cause));
        }
        let bytes = self.body(operation, name, found)?;
        if bytes.len() as u64 != size_bytes {
            let cause = format!("{} of {size_bytes} bytes came", bytes.len());
            return Err(self.error(operation, name, ErrorKind::Truncated, &cause));
        }
        Ok(bytes)
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        let operation = Operation::GetRange;
        let path = self.path(operation, name)?;
        let past_the_end = |size_bytes: u64| {
            let cause = format!(
                "it has {size_bytes} bytes, too few for {length_bytes} from {offset_bytes} on"
            );
            self.error(operation, name, ErrorKind::Truncated, &cause)
        };
        let Some(end) = offset_bytes.checked_add(length_bytes) else {
            return Err(past_the_end(self.size(name)?));
        };
        if length_bytes == 0 {
            // Storages disagree about a range of nothing, so they are not asked for one.
            let size_bytes = self.size(name)?;
            return if offset_bytes <= size_bytes {
                Ok(Bytes::new())
            } else {
                Err(past_the_end(size_bytes))
            };
        }
        match self.read_range(name, &path, offset_bytes..end) {
            Ok(bytes) => Ok(bytes),
            Err(Ok(size_bytes)) => Err(past_the_end(size_bytes)),
            // A range that starts past the end is an unsorted error in most implementations.
            Err(Err(error))
                if matches!(error.kind, ErrorKind::Permanent | ErrorKind::Truncated)
                    && error.reason != Reason::Cold =>
            {
                Err(match self.size(name) {
                    Ok(size_bytes) if size_bytes < end => past_the_end(size_bytes),
                    _ => error,
                })
            }
            Err(Err(error)) => Err(error),
        }
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.write(Operation::Put, name, bytes, PutMode::Overwrite)
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.write(Operation::Create, name, bytes, PutMode::Create)
    }

    fn delete(&self, name: &str) -> Result<()> {
        let path = self.path(Operation::Delete, name)?;
        match self.run(Operation::Delete, name, self.store.delete(&path)) {
            // A bucket that is not there is no object that is gone.
            Err(error) if error.kind == ErrorKind::NotFound && error.reason == Reason::Other => {
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        let folder = check_folder(&self.description, folder)?;
        if let Some(cloud) = &self.cloud {
            return self.list_pages(cloud, folder, visit);
        }
        let prefix = match folder {
            "" => None,
            folder => Some(self.path(Operation::List, folder)?),
        };
        let mut objects = self.store.list(prefix.as_ref());
        while let Some(object) = self.run(Operation::List, folder, objects.try_next())? {
            if let Some(info) = self.info(&object) {
                visit(info)?;
            }
        }
        Ok(())
    }

    fn size(&self, name: &str) -> Result<u64> {
        let path = self.path(Operation::Size, name)?;
        let meta = self.run(Operation::Size, name, self.store.head(&path))?;
        Ok(meta.size)
    }

    fn warmth(&self, name: &str) -> Result<Warmth> {
        check_name(Operation::Size, &self.description, name)?;
        let thawer = self.cloud.as_ref().and_then(|cloud| cloud.thawer.as_ref());
        match thawer {
            Some(thawer) => thawer.warmth(name),
            None => Ok(Warmth {
                size_bytes: self.size(name)?,
                class: String::new(),
                readiness: Readiness::Warm,
            }),
        }
    }

    fn thaw(&self, name: &str, warmth: &Warmth, how: &Thaw) -> Result<()> {
        check_name(Operation::Thaw, &self.description, name)?;
        let thawer = self.cloud.as_ref().and_then(|cloud| cloud.thawer.as_ref());
        match thawer {
            Some(thawer) => thawer.thaw(name, warmth, how),
            None => {
                let why = "this storage keeps nothing cold";
                Err(self.error(Operation::Thaw, name, ErrorKind::Permanent, why))
            }
        }
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;

    #[test]
    fn memory_keeps_the_contract() {
        contract::run(&|| Arc::new(ObjectStorage::memory()));
    }

    #[test]
    fn data_packs_are_known_by_name_and_header() {
        let header = |kind| [b"\x89LARDER\n\x01".as_slice(), &[kind], &[0; 54]].concat();
        assert!(is_data_pack("packs/ab/cd", &header(3)));
        assert!(!is_data_pack("packs/ab/cd", &header(4)));
        assert!(!is_data_pack("index/ab", &header(3)));
        assert!(!is_data_pack("packs/ab/cd", b"short"));
    }
}
