//! What happens to rows that come faster than the job takes them: the policies of a source.
//!
//! `block` needs nothing: a job that is full does not read. Every other policy puts a queue between
//! source and job ([`queue`] decides, [`buffered`] acts): a task reads the source ahead of the job,
//! and what does not fit into memory is dropped and counted, or waits on disk ([`spill`]).

mod buffered;
mod queue;
mod spill;

pub(crate) use buffered::Buffered;

#[cfg(test)]
mod tests;
