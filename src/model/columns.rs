//! The `audit` table: every column once, with its type, its meaning and what it needs.
//!
//! This registry is the only place that knows the table's shape. The decoder, the SQL planner, the generated
//! `schemas/audit.md` and `kubetide schema table` all read it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

/// The lowest audit level at which a column can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Metadata,
    Request,
}

/// How a column is laid out in a batch. SQL always sees the plain type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One value a row.
    Plain,
    /// `Dictionary<Int32, T>`: values repeat from row to row, so predicates run once per distinct value.
    Dictionary,
}

/// Everything known about one column.
#[derive(Debug)]
pub struct ColumnInfo {
    pub column: Column,
    pub name: &'static str,
    pub group: &'static str,
    pub kind: Kind,
    pub layout: Layout,
    pub level: Level,
    /// Whether the value comes out of a request or response body.
    pub body: bool,
    pub doc: &'static str,
}

/// SQL type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// JSON as text; read it with `json_get_str(column, 'key')` or `column->>'key'`.
    Json,
    Bool,
    Int,
    Time,
    TextList,
    IntList,
    Containers,
    Volumes,
    Subjects,
    Rules,
}

macro_rules! columns {
    ($( $group:literal { $( $id:ident $name:literal $kind:ident $layout:ident $level:ident $body:literal $doc:literal; )* } )*) => {
        /// One column of the `audit` table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Column { $( $( $id, )* )* }

        /// Every column of both tables; `ALL_COLUMNS[c as usize].column == c`.
        pub static ALL_COLUMNS: &[ColumnInfo] = &[ $( $( ColumnInfo {
            column: Column::$id, name: $name, group: $group, kind: Kind::$kind,
            layout: Layout::$layout, level: Level::$level, body: $body, doc: $doc,
        }, )* )* ];
    };
}

columns! {
    "identity" {
        EventId "event_id" Text Plain Metadata false "hash of the event's content; removes duplicates of delivery";
        RequestId "request_id" Text Plain Metadata false "the same without stage, stage time and code: one for each request";
        AuditId "audit_id" Text Plain Metadata false "`auditID`; chosen by the client, never use it alone as an identity";
        Stage "stage" Text Dictionary Metadata false "`ResponseComplete`, `ResponseStarted` or `Panic`; `RequestReceived` is not evaluated";
        Level "level" Text Dictionary Metadata false "what the audit policy allowed: `Metadata`, `Request`, `RequestResponse`";
        EventTime "event_time" Time Plain Metadata false "`stageTimestamp`, UTC";
        RequestTime "request_time" Time Plain Metadata false "`requestReceivedTimestamp`, UTC; the event time where the cloud does not deliver it";
        TimeSource "time_source" Text Dictionary Metadata false "where the event time is from: `event`, `envelope` or `broker`";
        Truncated "truncated" Bool Plain Metadata false "true where the event was cut or lost its bodies: body columns are then unknown (null)";
    }
    "origin" {
        Cloud "cloud" Text Dictionary Metadata false "`aks`, `eks`, `gke`, `openshift` or `other`";
        Account "account" Text Dictionary Metadata false "subscription, account or project";
        Region "region" Text Dictionary Metadata false "region or location; null on EKS and AKS, whose envelopes do not carry it";
        Cluster "cluster" Text Dictionary Metadata false "name of the cluster";
        ClusterId "cluster_id" Text Dictionary Metadata false "account/region/group/name: the key of everything that is kept for a cluster";
    }
    "request" {
        Verb "verb" Text Dictionary Metadata false "`get list watch create update patch delete deletecollection`, or the HTTP method in lower case for other URLs";
        Uri "uri" Text Plain Metadata false "path and query as sent; rebuilt without query on GKE";
        DryRun "dry_run" Bool Plain Metadata false "true where nothing was stored (`dryRun=All`)";
        ApiGroup "api_group" Text Dictionary Metadata false "API group, '' for core; null for other URLs";
        ApiVersion "api_version" Text Dictionary Metadata false "API version without the group";
        Resource "resource" Text Dictionary Metadata false "plural resource name; match it together with `api_group`, as a custom resource may have the same name";
        Subresource "subresource" Text Dictionary Metadata false "`exec`, `status`, `token` …; null where there is none";
        Namespace "namespace" Text Dictionary Metadata false "namespace of the object; null for objects of the whole cluster";
        Name "name" Text Plain Metadata false "name of the object; from the response where the request used `generateName`";
        UserAgent "user_agent" Text Dictionary Metadata false "claim of the client";
        SourceIps "source_ips" TextList Dictionary Metadata false "addresses as logged; all but the last are the client's claim";
        SourceIp "source_ip" Text Dictionary Metadata false "address of the client: from the end of `source_ips` over the trusted proxies, the last by default";
        ObjectUid "object_uid" Text Plain Metadata false "`objectRef.uid`";
    }
    "actor" {
        UserName "user_name" Text Dictionary Metadata false "who authenticated";
        UserUid "user_uid" Text Dictionary Metadata false "`user.uid`";
        UserGroups "user_groups" TextList Dictionary Metadata false "groups of the user; null on GKE";
        UserExtra "user_extra" Json Dictionary Metadata false "`user.extra`; null on GKE";
        CredentialId "credential_id" Text Dictionary Metadata false "`user.extra['authentication.kubernetes.io/credential-id']`: the token or certificate used";
        ImpersonatedUser "impersonated_user" Text Dictionary Metadata false "user name that the request ran as, null without impersonation";
        ImpersonatedGroups "impersonated_groups" TextList Dictionary Metadata false "groups that the request ran as, null without impersonation";
        EffectiveUser "effective_user" Text Dictionary Metadata false "whose rights were used: the impersonated user, else the user";
        ServiceAccount "service_account" Text Dictionary Metadata false "`namespace/name` where the user is a service account";
    }
    "outcome" {
        ResponseCode "response_code" Int Plain Metadata false "HTTP status; inferred on GKE where only a gRPC code is logged";
        ResponseReason "response_reason" Text Dictionary Metadata false "reason of a failure, such as `Forbidden`";
        ResponseMessage "response_message" Text Plain Metadata false "message of a failure: it says what was forbidden to whom";
        Decision "decision" Text Dictionary Metadata false "authorization decision, `allow` or `forbid`; `allow` is not success";
        DecisionReason "decision_reason" Text Dictionary Metadata false "binding and role that decided";
        Annotations "annotations" Json Dictionary Metadata false "annotations of the audit event";
    }
    "bodies" {
        RequestObject "request_object" Json Plain Request true "request body: the object, or the patch as sent";
        ResponseObject "response_object" Json Plain Request true "response body";
        Object "object" Json Plain Request true "the object after the request where it is known: response, else request";
        OldObject "old_object" Json Plain Request true "the object before the request; admission only";
        ObjectKind "object_kind" Text Dictionary Request true "`kind` of the object";
        ObjectPartial "object_partial" Bool Plain Request true "true where only a fragment (a patch) is known, so what is absent is unknown";
        Labels "labels" Json Plain Request true "`metadata.labels` of the object";
        ObjectAnnotations "object_annotations" Json Plain Request true "`metadata.annotations` of the object";
        OwnerKind "owner_kind" Text Dictionary Request true "kind of the controlling owner, null where there is none";
        OwnerName "owner_name" Text Plain Request true "name of the controlling owner";
    }
    "workload" {
        Containers "containers" Containers Plain Request true "every container of the pod (template): main, init and ephemeral";
        Images "images" TextList Plain Request true "images of all containers as written";
        Commands "commands" TextList Plain Request true "command and arguments of each container, of its probes and of its life cycle hooks, joined with spaces";
        HostPaths "host_paths" TextList Plain Request true "hostPath volumes (of persistent volumes too), cleaned: `//etc/../etc/` is `/etc`";
        CapabilitiesAdded "capabilities_added" TextList Plain Request true "capabilities added by any container: upper case, without `CAP_`";
        HostPorts "host_ports" IntList Plain Request true "host ports of all containers";
        Volumes "volumes" Volumes Plain Request true "volumes of the pod (template)";
        Privileged "privileged" Bool Plain Request true "any container is privileged";
        HostNetwork "host_network" Bool Plain Request true "the pod shares the node's network";
        HostPid "host_pid" Bool Plain Request true "the pod shares the node's process ids";
        HostIpc "host_ipc" Bool Plain Request true "the pod shares the node's IPC";
        ShareProcesses "share_process_namespace" Bool Plain Request true "containers of the pod share process ids";
        ServiceAccountName "service_account_name" Text Dictionary Request true "service account that the pod runs as";
        AutomountToken "automount_token" Bool Plain Request true "`automountServiceAccountToken` of the pod or the service account, null where unset";
        NodeName "node_name" Text Dictionary Request true "node that the pod asks for or is bound to";
        PriorityClass "priority_class" Text Dictionary Request true "`priorityClassName` of the pod";
        RuntimeClass "runtime_class" Text Dictionary Request true "`runtimeClassName` of the pod";
    }
    "access control" {
        RoleRefKind "role_ref_kind" Text Dictionary Request true "kind of the role that a binding grants";
        RoleRefName "role_ref_name" Text Dictionary Request true "name of the role that a binding grants";
        Subjects "subjects" Subjects Plain Request true "subjects of a binding";
        SubjectNames "subject_names" TextList Plain Request true "subjects by the user or group name that the API server sees: a service account is `system:serviceaccount:ns:name`";
        Rules "rules" Rules Plain Request true "rules of a role, or of the role an aggregated cluster role became";
    }
    "network" {
        ServiceType "service_type" Text Dictionary Request true "`ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`";
        ServicePorts "service_ports" IntList Plain Request true "ports and target ports of a service";
        ServiceSelector "service_selector" Json Plain Request true "`spec.selector` of a service";
        ExternalIps "external_ips" TextList Plain Request true "`externalIPs` of a service";
        LoadBalancerSourceRanges "load_balancer_source_ranges" TextList Plain Request true "client ranges that the load balancer admits; empty admits all";
        IngressHosts "ingress_hosts" TextList Plain Request true "hosts of an ingress or a route";
        IngressTls "ingress_tls" Bool Plain Request true "the ingress has a TLS block";
        BackendServices "backend_services" TextList Plain Request true "services that an ingress sends to";
    }
    "other" {
        WebhookUrls "webhook_urls" TextList Plain Request true "where admission webhooks send: the URL, or `service:ns/name`";
        FailurePolicy "failure_policy" Text Dictionary Request true "of admission webhooks and policies: `Ignore` where any of them ignores failures";
        CsrSigner "csr_signer" Text Dictionary Request true "signer of a certificate signing request";
        CsrUsages "csr_usages" TextList Plain Request true "usages of a certificate signing request";
        CsrSubject "csr_subject" Text Plain Request true "subject of the certificate asked for, such as `CN=jane,O=system:masters`";
        CsrConditions "csr_conditions" TextList Plain Request true "condition types of a certificate signing request, such as `Approved`";
        TokenAudiences "token_audiences" TextList Plain Request true "audiences of a token request";
        TokenSeconds "token_expiration_seconds" Int Plain Request true "life time of a token request";
        SecretType "secret_type" Text Dictionary Request true "`type` of a secret";
        DataKeys "data_keys" TextList Plain Request true "keys of a secret's or config map's data";
        ExecCommand "exec_command" Text Plain Metadata false "command of an exec, decoded and joined with spaces; null on GKE unless labelled";
        ExecContainer "exec_container" Text Dictionary Metadata false "container of an exec or attach";
        PatchType "patch_type" Text Dictionary Request true "`json`, `merge` (merge or strategic) or `apply`; null where it is no patch";
    }
    "alert" {
        AlertUid "alert_uid" Text Plain Metadata false "`finding_info.uid` of the alert";
        Detection "detection" Text Plain Metadata false "id of the detection that raised it";
        AlertSeverity "severity_id" Int Plain Metadata false "1 informational, 2 low, 3 medium, 4 high, 5 critical";
        Tactic "tactic" Text Plain Metadata false "the first of its ATT&CK tactics";
        Tactics "tactics" TextList Plain Metadata false "all of its ATT&CK tactics, such as TA0006";
        Techniques "techniques" TextList Plain Metadata false "all of its ATT&CK techniques, such as T1552.007";
    }
}

/// The columns of `audit` in table order: all but those of the group `alert`, which only `alerts` has.
pub static COLUMNS: &[ColumnInfo] = ALL_COLUMNS.split_at(Column::AlertUid as usize).0;

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

fn structs(fields: &[(&str, DataType)]) -> DataType {
    list(DataType::Struct(struct_fields(fields)))
}

fn struct_fields(fields: &[(&str, DataType)]) -> Fields {
    fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect()
}

impl Kind {
    /// The Arrow type that SQL sees.
    pub fn data_type(self) -> DataType {
        use DataType::{Boolean, Int32, Int64, Utf8};
        match self {
            Kind::Text | Kind::Json => Utf8,
            Kind::Bool => Boolean,
            Kind::Int => Int64,
            Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::TextList => list(Utf8),
            Kind::IntList => list(Int32),
            Kind::Containers => structs(&[
                ("name", Utf8),
                ("kind", Utf8),
                ("image", Utf8),
                ("registry", Utf8),
                ("repository", Utf8),
                ("tag", Utf8),
                ("digest", Utf8),
                ("command", list(Utf8)),
                ("args", list(Utf8)),
                ("privileged", Boolean),
                ("allow_privilege_escalation", Boolean),
                ("run_as_user", Int64),
                ("run_as_non_root", Boolean),
                ("read_only_root", Boolean),
                ("capabilities_added", list(Utf8)),
                ("capabilities_dropped", list(Utf8)),
                ("seccomp", Utf8),
                ("apparmor", Utf8),
                ("proc_mount", Utf8),
                ("env_secret_refs", list(Utf8)),
                ("host_ports", list(Int32)),
                ("cpu_limit", Utf8),
                ("memory_limit", Utf8),
            ]),
            Kind::Volumes => structs(&[
                ("name", Utf8),
                ("kind", Utf8),
                ("host_path", Utf8),
                ("source", Utf8),
                ("read_only", Boolean),
            ]),
            Kind::Subjects => structs(&[("kind", Utf8), ("name", Utf8), ("namespace", Utf8)]),
            Kind::Rules => structs(&[
                ("verbs", list(Utf8)),
                ("api_groups", list(Utf8)),
                ("resources", list(Utf8)),
                ("resource_names", list(Utf8)),
                ("non_resource_urls", list(Utf8)),
            ]),
        }
    }

    /// The name that documentation uses for the type.
    pub fn sql_name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Json => "json text",
            Kind::Bool => "boolean",
            Kind::Int => "integer",
            Kind::Time => "timestamp",
            Kind::TextList => "list of text",
            Kind::IntList => "list of integer",
            Kind::Containers | Kind::Volumes | Kind::Subjects | Kind::Rules => "list of struct",
        }
    }
}

impl Column {
    /// Looks a column up by its SQL name.
    pub fn by_name(name: &str) -> Option<Column> {
        ALL_COLUMNS.iter().find(|info| info.name == name).map(|info| info.column)
    }

    /// What the registry says about this column.
    pub fn info(self) -> &'static ColumnInfo {
        &ALL_COLUMNS[self as usize]
    }

    /// Whether only the table `alerts` has it.
    pub fn of_alerts(self) -> bool {
        self >= Column::AlertUid
    }

    /// Whether all events of a cluster have one value.
    pub fn of_cluster(self) -> bool {
        matches!(self, Column::Cluster | Column::ClusterId | Column::Cloud | Column::Account | Column::Region)
    }

    /// The SQL name.
    pub fn name(self) -> &'static str {
        self.info().name
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of columns; what a planner asks the decoder for.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ColumnSet(u128);

impl ColumnSet {
    /// No column.
    pub const EMPTY: ColumnSet = ColumnSet(0);

    /// Every column of `audit`.
    pub fn all() -> ColumnSet {
        COLUMNS.iter().map(|info| info.column).collect()
    }

    pub fn insert(&mut self, column: Column) {
        self.0 |= 1 << (column as u8);
    }

    pub fn contains(self, column: Column) -> bool {
        self.0 & (1 << (column as u8)) != 0
    }

    pub fn union(self, other: ColumnSet) -> ColumnSet {
        ColumnSet(self.0 | other.0)
    }

    pub fn intersection(self, other: ColumnSet) -> ColumnSet {
        ColumnSet(self.0 & other.0)
    }

    /// The columns that are not in `other`.
    pub fn without(self, other: ColumnSet) -> ColumnSet {
        ColumnSet(self.0 & !other.0)
    }

    /// Every column that is read out of a body.
    pub fn bodies() -> ColumnSet {
        static BODIES: LazyLock<ColumnSet> =
            LazyLock::new(|| COLUMNS.iter().filter(|info| info.body).map(|info| info.column).collect());
        *BODIES
    }

    /// The set as bits, by column number.
    pub fn bits(self) -> u128 {
        self.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether any of the columns is read out of a body.
    pub fn any_body(self) -> bool {
        !self.intersection(ColumnSet::bodies()).is_empty()
    }

    /// The columns in table order.
    pub fn iter(self) -> impl Iterator<Item = Column> {
        ALL_COLUMNS.iter().map(|info| info.column).filter(move |column| self.contains(*column))
    }
}

impl FromIterator<Column> for ColumnSet {
    fn from_iter<I: IntoIterator<Item = Column>>(columns: I) -> Self {
        let mut set = ColumnSet::EMPTY;
        columns.into_iter().for_each(|column| set.insert(column));
        set
    }
}

impl fmt::Debug for ColumnSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Column::name)).finish()
    }
}

/// The table as SQL sees it: plain types, every column nullable.
pub static AUDIT_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let fields: Vec<Field> = COLUMNS.iter().map(|info| Field::new(info.name, info.kind.data_type(), true)).collect();
    Arc::new(Schema::new(fields))
});

/// The table `alerts`: an alert is the event that raised it, with what the alert says.
pub static ALERTS_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let fields: Vec<Field> =
        ALL_COLUMNS.iter().map(|info| Field::new(info.name, info.kind.data_type(), true)).collect();
    Arc::new(Schema::new(fields))
});

/// Version of the table. A new nullable column raises the minor part, anything else the major part.
pub const AUDIT_SCHEMA_VERSION: &str = "1.0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_is_in_enum_order_and_names_are_unique() {
        let mut names = std::collections::HashSet::new();
        for (index, info) in ALL_COLUMNS.iter().enumerate() {
            assert_eq!(info.column as usize, index, "{}", info.name);
            assert!(names.insert(info.name), "{} twice", info.name);
            assert_eq!(Column::by_name(info.name), Some(info.column));
        }
        assert!(ALL_COLUMNS.len() <= 128, "ColumnSet holds 128 columns");
    }

    #[test]
    fn a_set_keeps_what_was_put_in() {
        let set: ColumnSet = [Column::Verb, Column::Images].into_iter().collect();
        assert!(set.contains(Column::Images) && !set.contains(Column::Name) && set.any_body());
        assert_eq!(set.iter().collect::<Vec<_>>(), vec![Column::Verb, Column::Images]);
    }
}
