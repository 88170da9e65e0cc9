//! What a failed step says to a person: why, and what to do.

use super::StepName;
use crate::error::{ErrorKind, Reason, StorageError};
use crate::location::Scheme;

/// Why a step failed, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is, in one word.
    pub reason: &'static str,
    /// The cause in words.
    pub cause: String,
    /// What to do; empty if there is nothing to say.
    pub advice: String,
    /// Whether a repository cannot work with it.
    pub is_fatal: bool,
}

/// Says what a storage's error means for a step.
pub(super) fn of(scheme: Scheme, step: StepName, error: &StorageError) -> Failure {
    let mut advice = error.advice().to_owned();
    if error.kind == ErrorKind::NotFound && has_folders(scheme) && error.reason != Reason::NoBucket
    {
        advice = "`larder init` makes it; to make it now, give --create".to_owned();
    }
    let may_be_right = error.reason == Reason::NotPermitted
        || error.reason == Reason::Other && error.kind == ErrorKind::Denied;
    if may_be_right && let Some(right) = right(scheme, step) {
        advice = format!("let the administrator grant {right}");
    }
    Failure {
        reason: error.reason_name(),
        cause: error.cause.clone(),
        advice,
        is_fatal: true,
    }
}

/// Says what is wrong where no storage said so.
pub(super) fn wrong(cause: impl Into<String>) -> Failure {
    Failure {
        reason: "wrong-answer",
        cause: cause.into(),
        advice: "this storage cannot be relied upon; choose another, or ask its maker".to_owned(),
        is_fatal: true,
    }
}

fn has_folders(scheme: Scheme) -> bool {
    !matches!(scheme, Scheme::S3 | Scheme::Google | Scheme::Azure)
}

/// Names the right that a step needs, as the store's administrator knows it.
fn right(scheme: Scheme, step: StepName) -> Option<&'static str> {
    use StepName::{CreateIfAbsent, Delete, List, RangeRead, ReadBack, Write};
    let name = match (scheme, step) {
        (Scheme::S3, Write | CreateIfAbsent) => "s3:PutObject on the bucket's objects",
        (Scheme::S3, ReadBack | RangeRead) => "s3:GetObject on the bucket's objects",
        (Scheme::S3, List | StepName::Find) => "s3:ListBucket on the bucket",
        (Scheme::S3, Delete) => "s3:DeleteObject on the bucket's objects",
        (Scheme::Google, Write | CreateIfAbsent) => "storage.objects.create",
        (Scheme::Google, ReadBack | RangeRead) => "storage.objects.get",
        (Scheme::Google, List | StepName::Find) => "storage.objects.list",
        (Scheme::Google, Delete) => "storage.objects.delete",
        (Scheme::Azure, Write | CreateIfAbsent) => {
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write"
        }
        (Scheme::Azure, ReadBack | RangeRead | List | StepName::Find) => {
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"
        }
        (Scheme::Azure, Delete) => {
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete"
        }
        (Scheme::Dropbox, Write | CreateIfAbsent | Delete) => {
            "the app the scope files.content.write"
        }
        (Scheme::Dropbox, ReadBack | RangeRead) => "the app the scope files.content.read",
        (Scheme::Dropbox, List | StepName::Find) => "the app the scope files.metadata.read",
        (_, Write | CreateIfAbsent | Delete) => "this user the right to write in the folder",
        (_, ReadBack | RangeRead | List) => "this user the right to read the folder",
        _ => return None,
    };
    Some(name)
}
