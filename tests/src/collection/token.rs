//! Create-if-absent where only a rename is decided by the server, as on FTP.
//!
//! There is one token. `token.<n>` holds what the n-th create staged under its hash; renaming it to
//! `token.<n+1>.<hash>` fails unless it is there, so it orders all creates. Whoever finds a token
//! first publishes what it names (its maker may have died), then looks whether its own name is
//! free, and only then renames.

use stateright::{Model, Property};

const CLIENTS: usize = 3;
const NAMES: usize = 2;
const LAST: u8 = 4;

/// The rules of the token, each of which a test leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRule {
    /// What a token names is published before anything else.
    PublishFirst,
    /// The name is looked at after the token was read.
    LookAfterToken,
    /// Only the rename decides, never an upload to the name itself.
    RenameDecides,
    /// The content is staged before the rename.
    StageFirst,
    /// The new token carries the hash, so that others can publish it.
    TokenNamesContent,
    /// After an ambiguous rename the token or the published object is read back.
    ReadBack,
}

/// Creates by several clients, who may die at any time.
#[derive(Debug, Clone)]
pub struct Token {
    /// The name that each client wants to create; all have different contents.
    pub wants: [u8; CLIENTS],
    /// A rule that is left out.
    pub without: Option<TokenRule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum At {
    #[default]
    Start,
    Staged,
    ReadToken,
    Published,
    Renamed,
    Unsure,
    Won,
    Lost,
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Client {
    at: At,
    /// The number and the content of the token that it read.
    number: u8,
    content: u8,
    found_free: bool,
}

/// The storage, and how far each client has come; content `i + 1` is that of client `i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Storage {
    clients: [Client; CLIENTS],
    staged: u8,
    number: u8,
    content: u8,
    objects: [u8; NAMES],
    /// The first content that was ever decided for each name.
    winners: [u8; NAMES],
    has_two_winners: bool,
    has_torn: bool,
}

/// Two creates of one name both succeeded.
pub const ONE_WINNER: &str = "a name has one winner";
/// A create succeeded, and its object is not there or another's.
pub const WINNER_STAYS: &str = "what was created stays as it is";
/// A token names content that nobody can publish.
pub const CAN_PUBLISH: &str = "what a token names can be published";
/// Two clients created something.
pub const TWO_CREATED: &str = "two creates succeed";
/// A client found its name taken.
pub const ONE_LOST: &str = "a create loses";
/// A client died after its rename, and another published for it.
pub const HELPED: &str = "a dead client's create is published by another";

impl Token {
    fn keeps(&self, rule: TokenRule) -> bool {
        self.without != Some(rule)
    }

    fn publish(&self, to: &mut Storage, content: u8) {
        if content == 0 {
            return;
        }
        let name = usize::from(self.wants[usize::from(content) - 1]);
        if to.staged >> content & 1 == 0 {
            to.has_torn = true;
        } else {
            to.objects[name] = content;
        }
    }

    fn decide(&self, to: &mut Storage, client: usize) {
        let winner = &mut to.winners[usize::from(self.wants[client])];
        let content = client as u8 + 1;
        to.has_two_winners |= *winner != 0 && *winner != content;
        if *winner == 0 {
            *winner = content;
        }
    }

    fn rename(&self, from: &Storage, client: usize) -> Vec<(&'static str, Storage)> {
        let me = from.clients[client];
        let mut lost = *from;
        lost.clients[client].at = At::Staged;
        if from.number != me.number {
            return vec![("finds its token gone", lost)];
        }
        let mut done = *from;
        done.number += 1;
        done.content = if self.keeps(TokenRule::TokenNamesContent) {
            client as u8 + 1
        } else {
            0
        };
        self.decide(&mut done, client);
        done.clients[client].at = At::Renamed;
        let mut unsure = done;
        unsure.clients[client].at = At::Unsure;
        let mut failed = *from;
        failed.clients[client].at = At::Unsure;
        vec![
            ("renames the token", done),
            ("renames the token and gets no answer", unsure),
            ("gets no answer to a rename that failed", failed),
        ]
    }

    /// Settles an ambiguous rename: the token was renamed by somebody if it is not there.
    fn read_back(&self, from: &Storage, client: usize) -> Storage {
        let mut to = *from;
        let content = client as u8 + 1;
        let name = usize::from(self.wants[client]);
        let is_mine = from.content == content || from.objects[name] == content;
        to.clients[client].at = match (is_mine, self.keeps(TokenRule::ReadBack)) {
            (true, true) => At::Renamed,
            (false, true) => At::Staged,
            (_, false) => At::Won,
        };
        to
    }

    fn step(&self, from: &Storage, client: usize, out: &mut Vec<(&'static str, Storage)>) {
        let me = from.clients[client];
        let name = usize::from(self.wants[client]);
        let mut to = *from;
        let mine = &mut to.clients[client];
        let what = match me.at {
            At::Start => {
                mine.at = At::Staged;
                mine.found_free = from.objects[name] == 0;
                if self.keeps(TokenRule::StageFirst) {
                    to.staged |= 2 << client;
                }
                "stages its content"
            }
            At::Staged => {
                (mine.number, mine.content) = (from.number, from.content);
                mine.at = At::ReadToken;
                "reads the token"
            }
            At::ReadToken => {
                mine.at = At::Published;
                if self.keeps(TokenRule::PublishFirst) {
                    self.publish(&mut to, me.content);
                }
                "publishes what the token names"
            }
            At::Published if !self.keeps(TokenRule::RenameDecides) => {
                if from.objects[name] != 0 {
                    mine.at = At::Lost;
                } else {
                    mine.at = At::Renamed;
                    mine.found_free = true;
                }
                "finds its name free or taken, and goes on without the token"
            }
            At::Published => {
                let is_free = if self.keeps(TokenRule::LookAfterToken) {
                    from.objects[name] == 0
                } else {
                    me.found_free
                };
                if is_free {
                    if from.number < LAST {
                        out.extend(self.rename(from, client));
                    }
                    return;
                }
                let is_mine = from.objects[name] == client as u8 + 1;
                mine.at = if is_mine { At::Won } else { At::Lost };
                "finds its name taken"
            }
            At::Unsure => {
                out.push(("reads back", self.read_back(from, client)));
                return;
            }
            At::Renamed => {
                mine.at = At::Won;
                to.staged |= 2 << client;
                if !self.keeps(TokenRule::RenameDecides) {
                    self.decide(&mut to, client);
                }
                self.publish(&mut to, client as u8 + 1);
                "publishes its own content"
            }
            At::Won | At::Lost | At::Dead => return,
        };
        out.push((what, to));
    }
}

impl Model for Token {
    type State = Storage;
    type Action = (&'static str, Storage);

    fn init_states(&self) -> Vec<Storage> {
        vec![Storage {
            clients: [Client::default(); CLIENTS],
            staged: 0,
            number: 0,
            content: 0,
            objects: [0; NAMES],
            winners: [0; NAMES],
            has_two_winners: false,
            has_torn: false,
        }]
    }

    fn actions(&self, state: &Storage, actions: &mut Vec<Self::Action>) {
        for client in 0..CLIENTS {
            self.step(state, client, actions);
            if !matches!(state.clients[client].at, At::Won | At::Lost | At::Dead) {
                let mut to = *state;
                to.clients[client].at = At::Dead;
                actions.push(("a client dies", to));
            }
        }
    }

    fn next_state(&self, _: &Storage, action: Self::Action) -> Option<Storage> {
        Some(action.1)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_WINNER, |_, state: &Storage| !state.has_two_winners),
            Property::always(WINNER_STAYS, |token: &Self, state: &Storage| {
                (0..CLIENTS).all(|client| {
                    let object = state.objects[usize::from(token.wants[client])];
                    state.clients[client].at != At::Won || object == client as u8 + 1
                })
            }),
            Property::always(CAN_PUBLISH, |_, state: &Storage| !state.has_torn),
            Property::sometimes(TWO_CREATED, |_, state: &Storage| {
                state
                    .clients
                    .iter()
                    .filter(|client| client.at == At::Won)
                    .count()
                    == 2
            }),
            Property::sometimes(ONE_LOST, |_, state: &Storage| {
                state.clients.iter().any(|client| client.at == At::Lost)
            }),
            Property::sometimes(HELPED, |_, state: &Storage| {
                let is_there = |client: &usize| state.objects.contains(&(*client as u8 + 1));
                let mut there = (0..CLIENTS).filter(is_there);
                there.any(|client| state.clients[client].at == At::Dead)
            }),
        ]
    }
}
