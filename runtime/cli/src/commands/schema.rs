//! `wasmill schema`: the job file for editors.

use clap::Args;
use serde_json::Value;
use wasmill_spec::{ConnectorSchemas, job_schema};

use crate::failure::Failure;
use crate::terminal::Terminal;

#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    /// Print the OpenAPI document of the service instead
    #[arg(long)]
    api: bool,
}

pub(super) fn schema(args: &SchemaArgs, terminal: &Terminal) -> Result<(), Failure> {
    if args.api {
        let document = serde_json::to_value(wasmill_control::service::api::document());
        let document = document.map_err(|error| Failure::failed(format!("cannot write the document: {error}")))?;
        return terminal.print(&format!("{document:#}"));
    }
    terminal.print(&format!("{:#}", whole()?))
}

/// The schema of the job file with the options of every connector.
fn whole() -> Result<Value, Failure> {
    let connectors = wasmill_connectors::schemas();
    let json = |schemas: std::collections::BTreeMap<&'static str, _>| {
        schemas
            .into_iter()
            .map(|(name, schema)| Ok((name.to_owned(), serde_json::to_value(schema)?)))
            .collect::<Result<_, serde_json::Error>>()
            .map_err(|error| Failure::failed(format!("cannot write the schema: {error}")))
    };
    Ok(job_schema(&ConnectorSchemas { sources: json(connectors.sources)?, sinks: json(connectors.sinks)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_knows_every_connector() {
        let schema = whole().expect("a schema");
        let sources = &schema["properties"]["source"]["additionalProperties"]["properties"]["connector"]["enum"];
        assert!(sources.as_array().is_some_and(|names| names.contains(&"file".into())), "{sources}");
    }
}
