//! Owners: the administrator and the users, each with all that a request can reach.
//!
//! A token says whose a request is, and from there on only that owner's [`Service`] is at hand. So nothing has to be filtered,
//! and no route can forget to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::service::{Common, Service};
use crate::tokens::Token;
use crate::users::{Limits, Users};
use crate::{Options, ServeError};

/// The name of the key of what is sealed, which lies beside a larder.toml.
const KEY_NAME: &str = "larder.key";

/// All owners.
pub struct Owners {
    /// The users, as they are written down.
    pub users: Users,
    administrator: Arc<Service>,
    common: Arc<Common>,
    open: Mutex<BTreeMap<String, (Limits, Arc<Service>)>>,
}

impl Owners {
    /// Reads what a service before this one left.
    ///
    /// # Errors
    /// When the folder cannot be used, or another service has it.
    pub fn open(options: Options, stop: Arc<AtomicBool>) -> Result<Self, ServeError> {
        let common = Arc::new(Common::new(stop));
        let (data, closed) = (options.data.clone(), closed(&options));
        let administrator = Service::open(options, Arc::clone(&common))?;
        let users = Users::open(&data, &closed);
        let users = users.map_err(|source| ServeError::Data {
            tried: "read the users in",
            path: data.join("users.json"),
            source,
        })?;
        let owners = Self {
            users,
            administrator: Arc::new(administrator),
            common,
            open: Mutex::default(),
        };
        owners.refresh();
        Ok(owners)
    }

    /// Gives what is the administrator's.
    pub fn administrator(&self) -> &Arc<Service> {
        &self.administrator
    }

    /// Gives all owners, the administrator first.
    pub fn all(&self) -> Vec<Arc<Service>> {
        let users = self.refresh();
        let administrator = std::iter::once(Arc::clone(&self.administrator));
        administrator.chain(users.into_values()).collect()
    }

    /// Gives what is an owner's; none if there is no such user.
    pub fn of(&self, user: Option<&str>) -> Option<Arc<Service>> {
        match user {
            None => Some(Arc::clone(&self.administrator)),
            Some(name) => self.refresh().remove(name),
        }
    }

    /// Finds the token that a text is and whose it is, in a time that tells nothing of the others.
    pub fn find(&self, text: &str, now: Timestamp) -> Option<(Arc<Service>, Token)> {
        let mut found = None;
        for owner in self.all() {
            if let Some(token) = owner.tokens.find(text, now) {
                found = Some((owner, token));
            }
        }
        found
    }

    /// Takes over what was changed about the users, by whichever run of the program.
    fn refresh(&self) -> BTreeMap<String, Arc<Service>> {
        let wanted = self.users.list();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|name, (_, service)| {
            // Somebody else may be called so by now, and has nothing of what is remembered.
            let stays = wanted.contains_key(name) && !service.data.is_replaced();
            if !stays {
                service.runs.close();
            }
            stays
        });
        for (name, limits) in wanted {
            match open.get_mut(&name) {
                Some((known, _)) if *known == limits => {}
                Some((known, service)) => {
                    service.narrow(&limits, self.users.closed());
                    *known = limits;
                }
                None => match self.open_user(&name, &limits) {
                    Ok(service) => {
                        open.insert(name, (limits, Arc::new(service)));
                    }
                    Err(error) => tracing::error!("the user {name} is left out: {error}"),
                },
            }
        }
        let services = open.iter();
        services
            .map(|(name, (_, service))| (name.clone(), Arc::clone(service)))
            .collect()
    }

    fn open_user(&self, name: &str, limits: &Limits) -> Result<Service, ServeError> {
        let common = Arc::clone(&self.common);
        let folder = self.users.folder(name);
        let options = &self.administrator.options;
        let service = Service::open_user(options, common, name, folder)?;
        service.narrow(limits, self.users.closed());
        Ok(service)
    }
}

/// Gives what no user's path may reach besides the service's own folder: the administrator's larder.toml, and its key.
fn closed(options: &Options) -> Vec<PathBuf> {
    let config = options.config.iter();
    let config = config.flat_map(|config| [config.clone(), config.with_file_name(KEY_NAME)]);
    config.collect()
}
