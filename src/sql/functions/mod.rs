//! Our own SQL functions: what is clumsy or slow in plain SQL over lists, rules, images and addresses.
//!
//! All are immutable: same arguments, same answer. NULL means unknown: a NULL list or text gives NULL, never false, and
//! so does a NULL pattern unless another pattern decides; NULL elements inside lists are ignored.
//!
//! A function is a [`Kernel`] (parameters, checks, evaluation over whole arrays) and an entry of [`FUNCTIONS`], which
//! is all that its documentation is made of.

mod arguments;
mod container;
mod image;
mod matcher;
mod net;
mod rbac;
mod reference;
pub(super) mod span;
mod text;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

use super::error::own_error;
use super::lists::Lists;
pub use span::{Span, WINDOW_FUNCTIONS};

pub(super) use arguments::{list_texts, type_name};
pub(super) use container::{Wanted, any_container};
pub(super) use image::Repository;
pub(super) use matcher::{Covers, Equal, ILike, Like, Matcher, Networks, Within};
pub(super) use net::is_public_ip;
pub(super) use rbac::RuleTest;

use arguments::{Arguments, Param, coerce};
use text::{AnyElement, Membership, Test, TheText};

/// What is documented about one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionInfo {
    /// The SQL name.
    pub name: &'static str,
    /// Its parameters and what it returns.
    pub signature: &'static str,
    /// What it does, what NULL does to it.
    pub doc: &'static str,
    /// An expression over the columns of `audit` that uses it.
    pub example: &'static str,
}

macro_rules! functions {
    ($( $name:literal $signature:literal $doc:literal $example:literal; )*) => {
        /// Every function of ours, in the order of the documentation.
        pub static FUNCTIONS: &[FunctionInfo] = &[ $( FunctionInfo {
            name: $name, signature: $signature, doc: $doc, example: $example,
        }, )* ];
    };
}

functions! {
    "any_like" "any_like(list, pattern, …) -> boolean"
        "Whether some text of the list is LIKE some pattern. `%` is any run of characters, `_` any one, `\\` takes the next as it is. Patterns are texts or lists of text, such as `reference('name')`."
        "any_like(host_paths, '/var/run/%.sock', '/root/.ssh%')";
    "any_ilike" "any_ilike(list, pattern, …) -> boolean"
        "Like `any_like`, ignoring case."
        "any_ilike(commands, '%xmrig%', '%stratum+tcp%')";
    "like_any" "like_any(text, pattern, …) -> boolean"
        "Whether the text is LIKE some pattern."
        "like_any(user_name, 'system:node:%', 'system:serviceaccount:kube-system:%')";
    "ilike_any" "ilike_any(text, pattern, …) -> boolean"
        "Like `like_any`, ignoring case."
        "ilike_any(user_agent, '%kube-hunter%', 'peirates%')";
    "any_in" "any_in(list, value, …) -> boolean"
        "Whether some element of the list equals some value. The list holds text or integers; values are single or lists."
        "any_in(capabilities_added, 'SYS_ADMIN', 'ALL')";
    "all_in" "all_in(list, value, …) -> boolean"
        "Whether every element of the list equals some value; true for an empty list."
        "all_in(user_groups, 'system:authenticated', 'system:nodes')";
    "any_path_within" "any_path_within(list, directory, …) -> boolean"
        "Whether some path of the list is one of the directories or lies below one."
        "any_path_within(host_paths, '/etc', '/var/lib/kubelet')";
    "any_path_covers" "any_path_covers(list, path, …) -> boolean"
        "Whether some path of the list is one of the paths or a directory above one, so that mounting it exposes the path."
        "any_path_covers(host_paths, '/var/run/docker.sock', '/run/containerd/containerd.sock')";
    "rbac_allows" "rbac_allows(rules, verb, api_group, resource) -> boolean"
        "Whether one rule covers verb, group and resource (`pods`, `pods/exec`), be it limited to named objects. `*`, `*/exec` and `pods/*` in a rule count."
        "rbac_allows(rules, 'create', '', 'pods/exec')";
    "rbac_grants" "rbac_grants(rules, verb, api_group, resource) -> boolean"
        "Like `rbac_allows`, but only rules without `resource_names` count: what holds for every object."
        "rbac_grants(rules, 'get', '', 'secrets')";
    "rbac_has_verb" "rbac_has_verb(rules, verb) -> boolean"
        "Whether some rule names the verb itself; a `*` does not count, `rbac_has_wildcard` finds that."
        "rbac_has_verb(rules, 'escalate')";
    "rbac_has_wildcard" "rbac_has_wildcard(rules, field) -> boolean"
        "Whether some rule has a `*` in `'verbs'`, `'resources'`, `'api_groups'` or `'non_resource_urls'`."
        "rbac_has_wildcard(rules, 'verbs')";
    "cidr_contains" "cidr_contains(cidr, ip) -> boolean"
        "Whether the address lies in the network. NULL where the address is none."
        "cidr_contains('10.0.0.0/8', source_ip)";
    "ip_in" "ip_in(ip, cidr, …) -> boolean"
        "Whether the address lies in some network; networks are texts or lists of text. NULL where the address is none."
        "ip_in(source_ip, '10.0.0.0/8', '192.168.0.0/16', 'fd00::/8')";
    "is_public_ip" "is_public_ip(ip) -> boolean"
        "Whether the IPv4 or IPv6 address belongs to one host on the internet. NULL where the address is none."
        "is_public_ip(source_ip)";
    "ip_network" "ip_network(ip, length) -> text"
        "The network of that length that the IPv4 address lies in; IPv6 addresses are cut to `/48`. NULL where the address is none."
        "ip_network(source_ip, '/24')";
    "image_registry" "image_registry(image) -> text"
        "Registry of an image in lower case, `docker.io` for short names."
        "image_registry(images[1]) = 'ghcr.io'";
    "image_repository" "image_repository(image) -> text"
        "Repository of an image in lower case, without registry, tag and digest; `nginx` gives `library/nginx`."
        "image_repository(images[1]) LIKE 'library/%'";
    "any_image_repository" "any_image_repository(images, pattern, …) -> boolean"
        "Whether the repository of some image is LIKE some pattern, ignoring case. A pattern without a slash is compared with the last segment, so `'xmrig%'` finds `evil/xmrig`."
        "any_image_repository(images, 'xmrig%', 'library/kali%')";
    "any_container" "any_container(containers, field) -> boolean, any_container(containers, field, value) -> boolean"
        "Whether some container has the boolean field set, or the field equal to the value; a field that is a list must hold the value. Fields that are NULL do not count."
        "any_container(containers, 'privileged') OR any_container(containers, 'proc_mount', 'Unmasked')";
    "reference" "reference(name) -> list of text"
        "The entries of `detections/lists/<name>.yaml`, put in while planning."
        "any_in(user_groups, reference('admin-groups'))";
}

/// All functions, over the lists of one planner.
pub(super) fn all(lists: &Lists) -> Vec<Arc<ScalarUDF>> {
    let over_rules = |name| function(name, rbac::OverRules(name));
    vec![
        function("any_like", Test::<AnyElement, Like>::new()),
        function("any_ilike", Test::<AnyElement, ILike>::new()),
        function("like_any", Test::<TheText, Like>::new()),
        function("ilike_any", Test::<TheText, ILike>::new()),
        function("any_in", Membership::any()),
        function("all_in", Membership::all()),
        function("any_path_within", Test::<AnyElement, Within>::new()),
        function("any_path_covers", Test::<AnyElement, Covers>::new()),
        over_rules("rbac_allows"),
        over_rules("rbac_grants"),
        over_rules("rbac_has_verb"),
        over_rules("rbac_has_wildcard"),
        function("cidr_contains", net::CidrContains),
        function("ip_in", Test::<TheText, Networks>::new()),
        function("is_public_ip", net::IsPublicIp),
        function("ip_network", net::IpNetwork),
        function("image_registry", image::ImagePart::registry()),
        function("image_repository", image::ImagePart::repository()),
        function("any_image_repository", Test::<AnyElement, Repository>::new()),
        function("any_container", container::AnyContainer),
        function("reference", reference::Reference(lists.clone())),
    ]
}

/// What one function does.
trait Kernel: fmt::Debug + Send + Sync + 'static {
    fn params(&self) -> &[Param];

    /// The types that arguments are cast to, or what is wrong with them.
    fn coerce(&self, given: &[DataType]) -> Result<Vec<DataType>, String> {
        coerce(self.params(), given)
    }

    fn returns(&self) -> DataType {
        DataType::Boolean
    }

    /// What is wrong with the constants among the arguments, if anything; `None` stands for an argument that varies.
    fn check(&self, _types: &[&DataType], _constants: &[Option<&ScalarValue>]) -> Result<(), String> {
        Ok(())
    }

    /// One value for each of [`Arguments::rows`].
    fn evaluate(&self, arguments: &Arguments<'_>) -> Result<ArrayRef>;
}

fn function(name: &'static str, kernel: impl Kernel) -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Function { name, signature, kernel: Box::new(kernel) }))
}

/// A kernel as DataFusion sees it. Within one session a name is one function, so names are compared.
#[derive(Debug)]
struct Function {
    name: &'static str,
    signature: Signature,
    kernel: Box<dyn Kernel>,
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Function {
    fn complain(&self, what: String) -> datafusion::error::DataFusionError {
        let signature = FUNCTIONS.iter().find(|info| info.name == self.name).map(|info| info.signature);
        own_error(&format!("{}: {what}", self.name), signature)
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        self.kernel.coerce(given).map_err(|what| self.complain(what))
    }

    fn return_type(&self, _given: &[DataType]) -> Result<DataType> {
        Ok(self.kernel.returns())
    }

    fn return_field_from_args(&self, call: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<&DataType> = call.arg_fields.iter().map(|field| field.data_type()).collect();
        self.kernel.check(&types, call.scalar_arguments).map_err(|what| self.complain(what))?;
        Ok(Arc::new(Field::new(self.name, self.kernel.returns(), true)))
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let array = self.kernel.evaluate(&Arguments::new(&call))?;
        if call.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_))) {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
        }
        Ok(ColumnarValue::Array(array))
    }
}
