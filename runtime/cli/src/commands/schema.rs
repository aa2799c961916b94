//! `wasmill schema`: the job file for editors.

use serde_json::Value;
use wasmill_spec::{ConnectorSchemas, job_schema};

use crate::failure::Failure;
use crate::terminal::Terminal;

pub(super) fn schema(terminal: &Terminal) -> Result<(), Failure> {
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
