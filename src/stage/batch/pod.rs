//! Reads a pod spec: the same in a Pod and in every template that makes pods.

use super::object::{List, Read, child, field, object, texts};
use crate::json::{Cursor, JsonError, Text};

#[derive(Debug, Default)]
pub(super) struct Container<'a> {
    /// `main`, `init` or `ephemeral`.
    pub kind: &'static str,
    pub name: Option<Text<'a>>,
    pub image: Option<Text<'a>>,
    pub command: Vec<Text<'a>>,
    pub args: Vec<Text<'a>>,
    /// Commands of probes and life cycle hooks.
    pub hooks: Vec<Vec<Text<'a>>>,
    pub privileged: Option<bool>,
    pub allow_privilege_escalation: Option<bool>,
    pub run_as_user: Option<i64>,
    pub run_as_non_root: Option<bool>,
    pub read_only_root: Option<bool>,
    pub capabilities_added: Vec<Text<'a>>,
    pub capabilities_dropped: Vec<Text<'a>>,
    pub seccomp: Option<Text<'a>>,
    pub apparmor: Option<Text<'a>>,
    pub proc_mount: Option<Text<'a>>,
    pub env_secret_refs: Vec<Text<'a>>,
    pub host_ports: Vec<i32>,
    pub cpu_limit: Option<Text<'a>>,
    pub memory_limit: Option<Text<'a>>,
}

#[derive(Debug, Default)]
pub(super) struct Volume<'a> {
    pub name: Option<Text<'a>>,
    /// The member that says what it is: `hostPath`, `secret`, `emptyDir` …
    pub kind: Option<Text<'a>>,
    pub host_path: Option<Text<'a>>,
    /// Name of the secret, config map, claim or server behind it.
    pub source: Option<Text<'a>>,
    pub read_only: Option<bool>,
}

#[derive(Debug, Default)]
pub(super) struct PodSpec<'a> {
    /// Absent unless the text has a list of containers of some kind.
    pub containers: List<Container<'a>>,
    pub volumes: List<Volume<'a>>,
    pub host_network: Option<bool>,
    pub host_pid: Option<bool>,
    pub host_ipc: Option<bool>,
    pub share_processes: Option<bool>,
    pub service_account: Option<Text<'a>>,
    pub automount_token: Option<bool>,
    pub node_name: Option<Text<'a>>,
    pub priority_class: Option<Text<'a>>,
    pub runtime_class: Option<Text<'a>>,
    run_as_user: Option<i64>,
    run_as_non_root: Option<bool>,
    seccomp: Option<Text<'a>>,
    apparmor: Option<Text<'a>>,
}

/// Reads `spec` of a pod or of a pod template.
pub(super) fn pod_spec<'a>(pod: &mut PodSpec<'a>, cursor: &mut Cursor<'a>) -> Read {
    object(cursor, |cursor, key| {
        match key {
            b"containers" => containers(pod, cursor, "main")?,
            b"initContainers" => containers(pod, cursor, "init")?,
            b"ephemeralContainers" => containers(pod, cursor, "ephemeral")?,
            b"volumes" => {
                let volumes = pod.volumes.get_or_insert_default();
                cursor.array(|cursor| volume(volumes, cursor))?;
            }
            b"hostNetwork" => pod.host_network = cursor.boolean()?,
            b"hostPID" => pod.host_pid = cursor.boolean()?,
            b"hostIPC" => pod.host_ipc = cursor.boolean()?,
            b"shareProcessNamespace" => pod.share_processes = cursor.boolean()?,
            b"serviceAccountName" => pod.service_account = cursor.text()?,
            // The deprecated twin is set by old clients alone.
            b"serviceAccount" if pod.service_account.is_none() => pod.service_account = cursor.text()?,
            b"automountServiceAccountToken" => pod.automount_token = cursor.boolean()?,
            b"nodeName" => pod.node_name = cursor.text()?,
            b"priorityClassName" => pod.priority_class = cursor.text()?,
            b"runtimeClassName" => pod.runtime_class = cursor.text()?,
            b"securityContext" => pod_security(pod, cursor)?,
            _ => {}
        }
        Ok(())
    })?;
    inherit(pod);
    Ok(())
}

/// A container has its pod's setting where it has none of its own.
fn inherit(pod: &mut PodSpec<'_>) {
    for container in pod.containers.iter_mut().flatten() {
        container.run_as_user = container.run_as_user.or(pod.run_as_user);
        container.run_as_non_root = container.run_as_non_root.or(pod.run_as_non_root);
        container.seccomp = container.seccomp.or(pod.seccomp);
        container.apparmor = container.apparmor.or(pod.apparmor);
    }
}

fn pod_security<'a>(pod: &mut PodSpec<'a>, cursor: &mut Cursor<'a>) -> Read {
    object(cursor, |cursor, key| {
        match key {
            b"runAsUser" => pod.run_as_user = cursor.integer()?,
            b"runAsNonRoot" => pod.run_as_non_root = cursor.boolean()?,
            b"seccompProfile" => field(cursor, b"type", |kind| pod.seccomp = Some(kind))?,
            b"appArmorProfile" => field(cursor, b"type", |kind| pod.apparmor = Some(kind))?,
            _ => {}
        }
        Ok(())
    })
}

fn containers<'a>(pod: &mut PodSpec<'a>, cursor: &mut Cursor<'a>, kind: &'static str) -> Read {
    let list = pod.containers.get_or_insert_default();
    cursor.array(|cursor| {
        if cursor.kind()? == crate::json::Kind::Object {
            let mut container = Container { kind, ..Container::default() };
            object(cursor, |cursor, key| container_field(&mut container, cursor, key))?;
            list.push(container);
        }
        Ok::<_, JsonError>(())
    })?;
    Ok(())
}

fn container_field<'a>(container: &mut Container<'a>, cursor: &mut Cursor<'a>, key: &[u8]) -> Read {
    match key {
        b"name" => container.name = cursor.text()?,
        b"image" => container.image = cursor.text()?,
        b"command" => container.command = texts(cursor)?,
        b"args" => container.args = texts(cursor)?,
        b"securityContext" => object(cursor, |cursor, key| security(container, cursor, key))?,
        b"env" => {
            cursor.array(|cursor| {
                child(cursor, b"valueFrom", |cursor| {
                    child(cursor, b"secretKeyRef", |cursor| {
                        field(cursor, b"name", |name| container.env_secret_refs.push(name))
                    })
                })
            })?;
        }
        b"envFrom" => {
            cursor.array(|cursor| {
                child(cursor, b"secretRef", |cursor| {
                    field(cursor, b"name", |name| container.env_secret_refs.push(name))
                })
            })?;
        }
        b"ports" => {
            cursor.array(|cursor| {
                child(cursor, b"hostPort", |cursor| {
                    let port = cursor.integer()?.and_then(|port| i32::try_from(port).ok());
                    container.host_ports.extend(port.filter(|port| *port != 0));
                    Ok(())
                })
            })?;
        }
        b"resources" => child(cursor, b"limits", |cursor| {
            object(cursor, |cursor, key| {
                match key {
                    b"cpu" => container.cpu_limit = cursor.text()?,
                    b"memory" => container.memory_limit = cursor.text()?,
                    _ => {}
                }
                Ok(())
            })
        })?,
        b"lifecycle" => object(cursor, |cursor, _| hook(container, cursor))?,
        b"livenessProbe" | b"readinessProbe" | b"startupProbe" => hook(container, cursor)?,
        _ => {}
    }
    Ok(())
}

/// `exec.command` of a probe or hook.
fn hook<'a>(container: &mut Container<'a>, cursor: &mut Cursor<'a>) -> Read {
    child(cursor, b"exec", |cursor| {
        child(cursor, b"command", |cursor| {
            container.hooks.push(texts(cursor)?);
            Ok(())
        })
    })
}

fn security<'a>(container: &mut Container<'a>, cursor: &mut Cursor<'a>, key: &[u8]) -> Read {
    match key {
        b"privileged" => container.privileged = cursor.boolean()?,
        b"allowPrivilegeEscalation" => container.allow_privilege_escalation = cursor.boolean()?,
        b"runAsUser" => container.run_as_user = cursor.integer()?,
        b"runAsNonRoot" => container.run_as_non_root = cursor.boolean()?,
        b"readOnlyRootFilesystem" => container.read_only_root = cursor.boolean()?,
        b"procMount" => container.proc_mount = cursor.text()?,
        b"seccompProfile" => field(cursor, b"type", |kind| container.seccomp = Some(kind))?,
        b"appArmorProfile" => field(cursor, b"type", |kind| container.apparmor = Some(kind))?,
        b"capabilities" => object(cursor, |cursor, key| {
            match key {
                b"add" => container.capabilities_added = texts(cursor)?,
                b"drop" => container.capabilities_dropped = texts(cursor)?,
                _ => {}
            }
            Ok(())
        })?,
        _ => {}
    }
    Ok(())
}

fn volume<'a>(volumes: &mut Vec<Volume<'a>>, cursor: &mut Cursor<'a>) -> Read {
    let mut volume = Volume::default();
    let is_object = cursor.object(|cursor, key| {
        match key.raw() {
            b"name" => volume.name = cursor.text()?,
            // Directives of a strategic merge patch are no kind of volume.
            raw if raw.starts_with(b"$") => {}
            _ => {
                volume.kind = Some(key);
                object(cursor, |cursor, inner| {
                    match inner {
                        b"path" if key.raw() == b"hostPath" => volume.host_path = cursor.text()?,
                        b"secretName" | b"name" | b"claimName" | b"server" | b"driver" => {
                            volume.source = cursor.text()?;
                        }
                        b"readOnly" => volume.read_only = cursor.boolean()?,
                        _ => {}
                    }
                    Ok(())
                })?;
            }
        }
        Ok::<_, JsonError>(())
    })?;
    if is_object {
        volumes.push(volume);
    }
    Ok(())
}
