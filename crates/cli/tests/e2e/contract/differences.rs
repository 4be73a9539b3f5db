//! Where pgrotate, or a stand-in, differs from a specification and is right: each place by name, with the reason and
//! where that stands. Everything else about such a request is still judged by the specification.

use serde_json::{Value, json};

/// A difference within one operation.
#[derive(Debug)]
pub(crate) struct Difference {
    /// The operation's id in the specification.
    operation: &'static str,
    how: How,
    /// Why it is no mistake.
    pub(crate) why: &'static str,
}

#[derive(Debug)]
enum How {
    /// A query parameter has this value, which the specification does not list.
    Query { name: &'static str, value: &'static str },
    /// A path parameter at the end is empty.
    EmptyParameter(&'static str),
    /// The path has this form.
    Path(&'static str),
    /// The answer of this status has a body.
    AnswerBody(u16),
    /// The answer has this property; a `*` in its place stands for each element of a list.
    AnswerProperty(&'static [&'static str]),
}

const POSTGRES_VERSION: &str = "the interface of 2025-08-01 is the newest stable one in Microsoft's repository of \
    specifications and the one of the Azure CLI; the SDK that this document was derived from is of 2026-10-01. \
    `postgres_api_version` under [azure] sets it";

const LOCATION: &str = "every resource of App Service says where it is; the SDK's models of those below a site leave it \
    out (recorded traffic of the Azure CLI)";

/// An api-version of PostgreSQL's that the specification does not list.
const fn postgres(operation: &'static str) -> Difference {
    let how = How::Query { name: "api-version", value: "2025-08-01" };
    Difference { operation, how, why: POSTGRES_VERSION }
}

/// The path of a resource whose rights are asked for.
const fn rights(template: &'static str, why: &'static str) -> Difference {
    Difference { operation: "Permissions_ListForResource", how: How::Path(template), why }
}

/// The place of a resource below a site.
const fn located(operation: &'static str, place: &'static [&'static str]) -> Difference {
    Difference { operation, how: How::AnswerProperty(place), why: LOCATION }
}

static DIFFERENCES: [Difference; 13] = [
    postgres("Servers_Get"),
    postgres("Servers_Update"),
    Difference {
        operation: "Servers_Update",
        how: How::AnswerBody(202),
        why: "Azure answers with the operation's name and start, and the SDK does not look at it (recorded traffic of \
              the Azure CLI)",
    },
    Difference {
        operation: "GetSecret",
        how: How::EmptyParameter("secret-version"),
        why: "an empty version is the latest one, and every SDK of Microsoft's asks for it so (Key Vault REST \
              reference, \"Get Secret\")",
    },
    rights(
        "/subscriptions/{subscriptionId}/resourcegroups/{resourceGroupName}/providers/\
         {resourceProviderNamespace}/{resourceType}/{resourceName}/providers/Microsoft.Authorization/permissions",
        "a resource that is nobody's child has no parentResourcePath, and its slash goes with it",
    ),
    rights(
        "/subscriptions/{subscriptionId}/resourcegroups/{resourceGroupName}/providers/\
         {resourceProviderNamespace}/{parentResourcePath}/{parentResourcePath}/{resourceType}/{resourceName}/\
         providers/Microsoft.Authorization/permissions",
        "parentResourcePath is type and name of the parent, with a slash between (`sites/NAME`)",
    ),
    located("WebApps_ListApplicationSettings", &["location"]),
    located("WebApps_ListApplicationSettingsSlot", &["location"]),
    located("WebApps_UpdateApplicationSettings", &["location"]),
    located("WebApps_UpdateApplicationSettingsSlot", &["location"]),
    located("WebApps_GetDiagnosticLogsConfiguration", &["location"]),
    located("WebApps_GetAppSettingsKeyVaultReferences", &["value", "*", "location"]),
    located("WebApps_GetAppSettingsKeyVaultReferencesSlot", &["value", "*", "location"]),
];

impl Difference {
    /// The form of the path, if that is what differs.
    pub(crate) fn path(&self) -> Option<&'static str> {
        match self.how {
            How::Path(template) => Some(template),
            _ => None,
        }
    }

    /// Whether it lets a path parameter be empty.
    pub(crate) fn allows_empty(&self, name: &str) -> bool {
        matches!(self.how, How::EmptyParameter(own) if own == name)
    }

    /// Whether it lets a query parameter have this value.
    pub(crate) fn allows(&self, name: &str, value: &str) -> bool {
        matches!(self.how, How::Query { name: own, value: wanted } if own == name && wanted == value)
    }

    /// Whether it lets the answer of this status have a body.
    pub(crate) fn allows_body(&self, status: u16) -> bool {
        matches!(self.how, How::AnswerBody(own) if own == status)
    }

    /// Takes the property out of an answer, if that is what differs; tells whether it was there.
    pub(crate) fn take(&self, answer: &mut Value) -> bool {
        matches!(self.how, How::AnswerProperty(place) if take(answer, place))
    }

    /// One line for the report.
    pub(crate) fn line(&self) -> String {
        let what = match self.how {
            How::Query { name, value } => format!("{name}={value}"),
            How::EmptyParameter(name) => format!("{name} empty"),
            How::Path(template) => format!("path of {} parts", template.matches('/').count()),
            How::AnswerBody(status) => format!("{status} with a body"),
            How::AnswerProperty(place) => format!("answers {}", place.join("/")),
        };
        format!("{}: {what}", self.operation)
    }
}

fn take(value: &mut Value, place: &[&str]) -> bool {
    match place {
        [name] => value.as_object_mut().is_some_and(|object| object.remove(*name).is_some()),
        ["*", rest @ ..] => {
            let elements = value.as_array_mut().into_iter().flatten();
            elements.map(|element| take(element, rest)).fold(false, |any, one| any | one)
        }
        [name, rest @ ..] => value.get_mut(name).is_some_and(|inner| take(inner, rest)),
        [] => false,
    }
}

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Difference> {
    DIFFERENCES.iter()
}

/// Those of an operation.
pub(crate) fn of(operation: &str) -> impl Iterator<Item = &'static Difference> {
    DIFFERENCES.iter().filter(move |difference| difference.operation == operation)
}

/// A place where a specification contradicts itself.
struct Correction {
    document: &'static str,
    pointer: &'static str,
    wrong: Value,
    right: Value,
}

/// Mends a document where it is known to be wrong.
pub(crate) fn correct(root: &mut Value) {
    let corrections = [Correction {
        // Its own examples send texts and truth values there, and `/fields/{id}/value` is a text.
        document: "1Password Connect",
        pointer: "/components/schemas/Patch/items/properties/value",
        wrong: json!({"type": "object"}),
        right: json!({}),
    }];
    let title = root["info"]["title"].as_str().unwrap_or_default().to_owned();
    for correction in corrections.into_iter().filter(|correction| correction.document == title) {
        let place = root.pointer_mut(correction.pointer).expect("the place of a correction is there");
        assert_eq!(
            *place, correction.wrong,
            "the specification has changed: is the correction still needed?"
        );
        *place = correction.right;
    }
}
