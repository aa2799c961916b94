use wasmill_model::NodeName;
use wasmill_spec::{Diagnostic, JobSpec, PortRef, Span, did_you_mean};

/// Which side of a stage a port is on.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Input,
    Output,
}

/// The number of a port of a plugin that has ports of these `names`. A plugin that names none has
/// one.
pub(crate) fn number(
    job: &JobSpec,
    stage: &NodeName,
    side: Side,
    names: &[String],
    port: &PortRef,
    span: &Span,
) -> Result<u16, Diagnostic> {
    let found = match port {
        PortRef::Number(number) => (usize::from(*number) < names.len().max(1)).then_some(*number),
        PortRef::Name(name) => names.iter().position(|known| known == name).and_then(|at| u16::try_from(at).ok()),
    };
    found.ok_or_else(|| {
        let side = match side {
            Side::Input => "input",
            Side::Output => "output",
        };
        let message = format!("stage `{stage}` has no {side} port `{port}`");
        let meant = match port {
            PortRef::Name(name) => did_you_mean(name, names.iter().map(String::as_str)),
            PortRef::Number(_) => None,
        };
        let hint = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if names.is_empty() => format!("its plugin has one {side} port, 0"),
            None => {
                let all: Vec<String> =
                    names.iter().enumerate().map(|(number, name)| format!("`{name}` ({number})")).collect();
                format!("its plugin has {}", all.join(", "))
            }
        };
        Diagnostic::error(job.document().source(), span.clone(), message).hint(hint)
    })
}
