//! What the directives of a snippet mean, and which of them mean nothing here.

use super::{Change, Condition, Operator, Program, Step, syntax::Directive};
use crate::{
    Case, Networks, Pattern, Template,
    settings::{is_absolute, network},
};

/// Directives that tune nginx and let nobody in or out: what they ask for is decided elsewhere, and they are told as having
/// no effect. Whatever is neither known nor here refuses the snippet.
const TUNING: [&str; 31] = [
    "access_log",
    "brotli",
    "charset",
    "chunked_transfer_encoding",
    "client_body_buffer_size",
    "client_body_timeout",
    "client_header_buffer_size",
    "client_header_timeout",
    "client_max_body_size",
    "error_log",
    "etag",
    "expires",
    "gzip",
    "http2_push_preload",
    "if_modified_since",
    "keepalive_timeout",
    "large_client_header_buffers",
    "log_not_found",
    "opentelemetry",
    "proxy_buffer",
    "proxy_busy_buffers_size",
    "proxy_connect_timeout",
    "proxy_http_version",
    "proxy_max_temp_file_size",
    "proxy_next_upstream",
    "proxy_read_timeout",
    "proxy_request_buffering",
    "proxy_send_timeout",
    "send_timeout",
    "server_tokens",
    "tcp_no",
];

/// Fields that frame messages or belong to a connection: the proxy decides them.
const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Reads directives into a program; what has no effect is told to `report`.
pub(super) fn read(directives: &[Directive], report: &mut dyn FnMut(String)) -> Result<Program, String> {
    let mut reading = Reading { names: Vec::new(), report };
    let steps = reading.steps(directives)?;
    Ok(Program { steps, variables: reading.names.len() })
}

struct Reading<'r> {
    /// Variables that were set so far.
    names: Vec<String>,
    report: &'r mut dyn FnMut(String),
}

impl Reading<'_> {
    fn steps(&mut self, directives: &[Directive]) -> Result<Box<[Step]>, String> {
        let mut steps = Vec::new();
        for directive in directives {
            self.step(directive, &mut steps).map_err(|reason| format!("{} {reason}", directive.name))?;
        }
        Ok(steps.into())
    }

    fn step(&mut self, directive: &Directive, steps: &mut Vec<Step>) -> Result<(), String> {
        let words: Vec<&str> = directive.words.iter().map(String::as_str).collect();
        match (directive.name.as_str(), &*words, &directive.block) {
            ("if", condition, Some(block)) => {
                let condition = self.condition(condition)?;
                steps.push(Step::If(condition, self.steps(block)?));
            }
            (_, _, Some(_)) => return Err("is a block that is not known".to_owned()),
            ("set", [name, value], _) => {
                let value = self.template(value)?;
                let name = name.strip_prefix('$').ok_or("sets no variable")?.to_ascii_lowercase();
                if crate::Variable::named(&name).is_some() {
                    return Err(format!("sets ${name}, which is not the snippet's own"));
                }
                let place = self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
                    self.names.push(name);
                    self.names.len() - 1
                });
                steps.push(Step::Set(place, value));
            }
            ("break", [], _) => steps.push(Step::Break),
            ("return", words, _) => steps.push(self.answer(words)?),
            ("rewrite", [pattern, to, flag @ ("redirect" | "permanent" | "break")], _) => {
                let pattern = Pattern::new(pattern, Case::Sensitive).map_err(|error| error.to_string())?;
                let to = self.template(to)?;
                let status = match *flag {
                    "permanent" => Some(301),
                    "redirect" => Some(302),
                    _ => is_absolute(&to).then_some(302),
                };
                steps.push(Step::Rewrite { pattern, to, status });
            }
            (verb @ ("allow" | "deny"), [who], _) => {
                let who =
                    if *who == "all" { None } else { Some(Networks::new([network(who).ok_or("names no network")?])) };
                steps.push(Step::Admit(verb == "allow", who));
            }
            ("proxy_set_header", [name, value], _) => self.field(name, value, steps, Step::Upstream)?,
            ("more_set_input_headers", fields, _) => {
                for field in fields {
                    let (name, value) = field.split_once(':').ok_or("has an option or a field without a colon")?;
                    self.field(name, value.trim(), steps, Step::Upstream)?;
                }
            }
            ("more_clear_input_headers", names, _) => {
                for name in names {
                    self.field(name, "", steps, Step::Upstream)?;
                }
            }
            ("add_header", [name, value], _) => {
                self.field(name, value, steps, |name, value| Step::Change(name, Change::Add(value)))?;
            }
            ("add_header", [name, value, "always"], _) => {
                self.field(name, value, steps, |name, value| Step::Change(name, Change::AddAlways(value)))?;
            }
            ("more_set_headers", fields, _) if !fields.is_empty() => {
                for field in fields {
                    let (name, value) = field.split_once(':').ok_or("has an option or a field without a colon")?;
                    self.field(name, value.trim(), steps, |name, value| Step::Change(name, Change::Set(value)))?;
                }
            }
            ("more_clear_headers" | "proxy_hide_header", names @ [_, ..], _) => {
                for name in names {
                    let bare = name.strip_suffix('*').unwrap_or(name);
                    let change = if bare.len() < name.len() { Change::ClearAll } else { Change::Clear };
                    self.field(bare, "", steps, |name, _| Step::Change(name, change))?;
                }
            }
            (name, _, None) if TUNING.iter().any(|tuning| name.starts_with(tuning)) => {
                (self.report)(format!("{name} has no effect here"));
            }
            _ => return Err("is not among the directives that are allowed".to_owned()),
        }
        Ok(())
    }

    fn field(
        &mut self,
        name: &str,
        value: &str,
        steps: &mut Vec<Step>,
        step: impl FnOnce(Box<str>, Template) -> Step,
    ) -> Result<(), String> {
        let name = name.trim().to_ascii_lowercase();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Err(format!("has {name:?}, which is no field's name"));
        }
        if FRAMING.contains(&name.as_str()) {
            (self.report)(format!("{name} has no effect: the proxy decides that field"));
            return Ok(());
        }
        let value = self.template(value)?;
        steps.push(step(name.into(), value));
        Ok(())
    }

    fn answer(&self, words: &[&str]) -> Result<Step, String> {
        let (status, text) = match words {
            [url] if url.starts_with("http://") || url.starts_with("https://") || url.starts_with('$') => {
                (302, Some(*url))
            }
            [status] => (status.parse().map_err(|_| "has no status")?, None),
            [status, text] => (status.parse().map_err(|_| "has no status")?, Some(*text)),
            _ => return Err("has no status".to_owned()),
        };
        if !(200..=599).contains(&status) && status != 444 {
            return Err("has no status from 200 to 599".to_owned());
        }
        let text = text.map(|text| self.template(text)).transpose()?;
        Ok(Step::Answer { status, text })
    }

    fn condition(&self, words: &[&str]) -> Result<Condition, String> {
        let whole = words.join("\0");
        let inner = whole.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).ok_or("has no parentheses")?;
        let words: Vec<&str> = inner.split('\0').filter(|word| !word.is_empty()).collect();
        let variable = |word: &str| {
            if word.starts_with('$') { self.template(word) } else { Err("asks for no variable".to_owned()) }
        };
        Ok(match &*words {
            [name] => Condition { subject: variable(name)?, operator: Operator::Holds, negated: false },
            [name, "="] => {
                Condition { subject: variable(name)?, operator: Operator::Is(Template::default()), negated: false }
            }
            [name, "!="] => {
                Condition { subject: variable(name)?, operator: Operator::Is(Template::default()), negated: true }
            }
            [name, sign @ ("=" | "!="), value] => {
                let operator = Operator::Is(self.template(value)?);
                Condition { subject: variable(name)?, operator, negated: *sign == "!=" }
            }
            [name, sign @ ("~" | "!~" | "~*" | "!~*"), pattern] => {
                let case = if sign.ends_with('*') { Case::Insensitive } else { Case::Sensitive };
                let pattern = Pattern::new(pattern, case).map_err(|error| format!("has a pattern that {error}"))?;
                let operator = Operator::Matches(pattern);
                Condition { subject: variable(name)?, operator, negated: sign.starts_with('!') }
            }
            _ => return Err("has a condition that is not known".to_owned()),
        })
    }

    fn template(&self, text: &str) -> Result<Template, String> {
        let own = |name: &str| {
            let name = name.to_ascii_lowercase();
            self.names.iter().position(|known| *known == name)
        };
        Template::parse_with(text, own).map_err(|error| format!("has a text that {error}"))
    }
}
