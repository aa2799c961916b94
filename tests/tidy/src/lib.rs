//! Rules of the repository that no compiler holds: who may know whom, what every crate says about
//! itself, where a dependency comes from and why it is there. Each test lists every offence.

#[cfg(test)]
mod dependencies;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod promises;
#[cfg(test)]
mod sabotage;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod workspace;
