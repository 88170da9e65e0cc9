//! Requests to a bucket and nothing else, to compare with: `bare_bucket list URL` goes through its listing page by
//! page, `bare_bucket put URL COUNT BYTES` writes so many objects of noise on as many connections as a restore has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use larder_engine::storage::bucket::{self, Bucket, PageFrom, Properties};
use larder_engine::storage::location::{Layers, Location};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list", url] => list(open(url)?.as_ref()),
        ["put", url, count, bytes] => put(open(url)?.as_ref(), count.parse()?, bytes.parse()?),
        _ => Err("bare_bucket list URL | put URL COUNT BYTES".into()),
    }
}

fn open(url: &str) -> Result<Arc<dyn Bucket>> {
    let env = std::env::vars()
        .map(|(name, value)| (name, value.into()))
        .collect();
    let layers = Layers {
        env: Some(&env),
        ..Layers::default()
    };
    Ok(bucket::open(&Location::new(url, &layers)?, Arc::default())?)
}

fn list(bucket: &dyn Bucket) -> Result<()> {
    let mut page = bucket.page(PageFrom::Start)?;
    let mut objects = page.objects.len();
    while let Some(next) = page.next {
        page = bucket.page(PageFrom::Next(&next))?;
        objects += page.objects.len();
    }
    println!("{objects} objects");
    Ok(())
}

fn put(bucket: &dyn Bucket, count: u64, length: usize) -> Result<()> {
    let next = AtomicU64::new(0);
    let work = || -> Result<()> {
        let mut bytes = vec![0; length];
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            for (place, byte) in bytes.iter_mut().zip(number.to_le_bytes()) {
                *place = byte;
            }
            let key = format!("object-{number:09}").into_bytes();
            bucket.put(&key, Bytes::copy_from_slice(&bytes), &Properties::new())?;
        }
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..bucket.calls_at_once())
            .map(|_| scope.spawn(work))
            .collect();
        running
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })?;
    println!("{count} objects");
    Ok(())
}
