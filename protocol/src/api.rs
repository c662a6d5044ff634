//! The management API's requests and answers: JSON over HTTPS under `/api/v1`, spoken by consoles.
//!
//! Times are seconds since 1970 by the server's clock. Errors are RFC 9457 problem documents ([`Problem`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::command::{Action, CommandState};
use crate::fingerprint::Fingerprint;
use crate::ids::{CommandId, DeviceId, KeyId, SessionId, UnitId};
use crate::secret::Secret;
use crate::session::Permissions;
use crate::settings::Value;

/// Logs an operator in: `POST /login`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Login {
    /// Account name.
    pub user: String,
    /// Password.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Password))]
    pub password: Secret,
}

/// The answer to a log-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LoggedIn {
    /// Bearer token for the `Authorization` header.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Password))]
    pub token: Secret,
    /// Display name of the operator.
    pub display_name: String,
    /// What the account may do.
    pub role: Role,
    /// Seconds until the token ends.
    pub expires_in_seconds: u32,
}

/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Administrator,
    /// See devices, shadow, send messages and reboots.
    Operator,
    /// Read everything, change nothing.
    Auditor,
}

/// An operator account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Account {
    /// Account name.
    pub user: String,
    /// Name that people at the devices see.
    pub display_name: String,
    /// What the account may do.
    pub role: Role,
}

/// Makes an account: `POST /accounts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewAccount {
    /// Account name: letters, digits, dots, dashes.
    pub user: String,
    /// Name that people at the devices see.
    pub display_name: String,
    /// What the account may do.
    pub role: Role,
    /// Password, at least 12 characters.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Password))]
    pub password: Secret,
}

/// Sets an account's password: `PUT /accounts/{user}/password`. Administrators set anybody's, all others their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewPassword {
    /// Password, at least 12 characters.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Password))]
    pub password: Secret,
}

/// A device on file: `GET /devices`, `GET /devices/{device}` where `{device}` is a device ID, a unit ID or a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Device {
    /// SHA-256 of its public key.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: DeviceId,
    /// The label on the device.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub unit_id: UnitId,
    /// The name that the administrators gave to it.
    pub name: String,
    /// Whether its link stands.
    pub online: bool,
    /// When something was last heard of it.
    pub last_seen: Option<i64>,
    /// Operating system, as the device says.
    pub os: String,
    /// Version of its agent.
    pub agent_version: String,
    /// Name of the gateway that its link goes through; nothing when it is offline or linked directly.
    pub gateway: Option<String>,
    /// Where shadowing reaches it, best first, as `HOST:PORT`; empty when only a gateway does.
    pub shadow_addresses: Vec<String>,
    /// SHA-256 of the certificate on file.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub certificate: Fingerprint,
    /// Whether somebody with the same unit ID presents another certificate (re-imaged or cloned device), and which.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub conflicting_certificate: Option<Fingerprint>,
    /// Since when two machines take turns under this device's key (its disk was copied); nothing once a new key has replaced it,
    /// or an administrator has said that it is none.
    #[serde(default)]
    pub clone_suspected_at: Option<i64>,
    /// Since when a copy of this device is refused, which still has a key that a new one replaced; nothing once an administrator
    /// has said that it is none.
    #[serde(default)]
    pub copy_refused_at: Option<i64>,
    /// Revision of the settings that the device has applied, and the newest.
    pub settings_applied: u64,
    /// Revision of the newest settings.
    pub settings_revision: u64,
    /// Parameters that the device refused, each with its sentence.
    pub settings_refused: BTreeMap<String, String>,
    /// Commands that wait for the device.
    pub commands_waiting: u32,
    /// When it was taken on.
    pub enrolled_at: i64,
}

/// Changes a device's name: `PATCH /devices/{device}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceChange {
    /// New name.
    pub name: String,
}

/// Accepts the certificate of a conflict as the device's certificate: `POST /devices/{device}/certificate`. It has to be
/// named, so that nobody can put another one in its place meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AcceptCertificate {
    /// [`Device::conflicting_certificate`], as it was looked at.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub certificate: Fingerprint,
}

/// The parameters that the server decides for a device: `GET` and `PUT /devices/{device}/settings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceSettings {
    /// Dotted names and values.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Object>))]
    pub values: BTreeMap<String, Value>,
}

/// What holds for every device: `GET` and `PUT /policy`.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Policy {
    /// Only encrypted shadowing, whatever the device is set to ("Enable secure VNC globally").
    pub enforce_secure_mode: bool,
    /// How many devices all gateways together may connect; any number when absent.
    #[serde(default)]
    pub gateway_connections: Option<u32>,
}

/// Sends a command: `POST /devices/{device}/commands`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewCommand {
    /// What to do.
    #[serde(flatten)]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub action: Action,
}

/// A command and how far it is: `GET /devices/{device}/commands`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CommandInfo {
    /// Its ID.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: CommandId,
    /// The action's name.
    pub action: String,
    /// When it was given.
    pub created_at: i64,
    /// Who gave it.
    pub created_by: String,
    /// How it ended; nothing while it waits.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub state: Option<CommandState>,
    /// The device's sentence about it.
    pub sentence: Option<String>,
    /// Named facts, for an inventory.
    pub facts: BTreeMap<String, String>,
    /// How far it was when the device last said so, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// How far a command is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    /// How much of it is done, where that is known: 0 to 100.
    pub percent: Option<u8>,
    /// What is being done.
    pub sentence: String,
    /// When the device said so.
    pub at: i64,
}

/// The kinds of first-authentication key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// One device, whichever comes first.
    OneTime,
    /// One of the named units, once each.
    Bound,
    /// Any number of devices.
    Mass,
}

/// Makes first-authentication keys: `POST /keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewKeys {
    /// Which kind.
    pub kind: KeyKind,
    /// How many (1 to 1,000; only 1 for a chosen key).
    pub count: u32,
    /// For [`KeyKind::Bound`]: which units.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub units: Vec<UnitId>,
    /// For [`KeyKind::Mass`]: a key that a person made up; random otherwise.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Password))]
    pub chosen: Option<Secret>,
    /// Seconds until the key ends; never when absent.
    #[serde(default)]
    pub expires_in_seconds: Option<u64>,
    /// For [`KeyKind::Mass`]: how many devices it may take on; any number when absent.
    #[serde(default)]
    pub quota: Option<u32>,
    /// A word for finding the key and its devices again.
    #[serde(default)]
    pub tag: String,
}

/// A key that was just made: the only time that its text leaves the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MadeKey {
    /// The key's ID.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: KeyId,
    /// The key.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Password))]
    pub key: Secret,
}

/// A key on file, without its text: `GET /keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyInfo {
    /// The key's ID.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: KeyId,
    /// Which kind.
    pub kind: KeyKind,
    /// For [`KeyKind::Bound`]: which units.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub units: Vec<UnitId>,
    /// When it was made.
    pub created_at: i64,
    /// Who made it.
    pub created_by: String,
    /// When it ends.
    pub expires_at: Option<i64>,
    /// How many devices it may take on.
    pub quota: Option<u32>,
    /// How many devices it took on.
    pub used: u32,
    /// A word for finding it again.
    pub tag: String,
    /// Whether it still opens the door, or why not.
    pub state: KeyState,
}

/// Whether a key still opens the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It does.
    Active,
    /// It took on as many devices as it may.
    Used,
    /// Its time is over.
    Expired,
    /// An administrator revoked it.
    Revoked,
    /// An administrator disabled it; it can be enabled again.
    Disabled,
}

/// Disables or enables a key: `PATCH /keys/{key}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyChange {
    /// Whether it may open the door.
    pub enabled: bool,
}

/// A device that came in with a key: `GET /keys/{key}/uses`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyUse {
    /// When.
    pub at: i64,
    /// The unit ID that it gave then.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub unit_id: UnitId,
    /// SHA-256 of the certificate that it presented then.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub certificate: Fingerprint,
    /// The device's name today.
    pub device_name: String,
    /// Whether the device is on file no more.
    pub removed: bool,
}

/// What a device needs to find and to trust this server and its gateways: `GET /credentials`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerCredentials {
    /// Host name or address for devices.
    pub host: String,
    /// Port for devices.
    pub port: u16,
    /// SHA-256 of the root certificate.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub root_fingerprint: Fingerprint,
    /// The root certificate, PEM.
    pub root_certificate: String,
    /// The gateways, those first to which the server is attached; one that several roots vouch for is there with each.
    #[serde(default)]
    pub gateways: Vec<GatewayCredentials>,
}

/// What a device needs to find and to trust a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GatewayCredentials {
    /// The gateway's name.
    pub name: String,
    /// Host name or address for devices.
    pub host: String,
    /// Port for devices.
    pub port: u16,
    /// SHA-256 of its root certificate.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub root_fingerprint: Fingerprint,
    /// Whether the server is attached to it at the moment.
    pub attached: bool,
}

/// Asks for a shadowing session: `POST /sessions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewSession {
    /// A device ID, a unit ID or a name.
    pub device: String,
    /// Why, for the person at the device and the audit log.
    #[serde(default)]
    pub reason: String,
    /// What the operator wants to do.
    pub permissions: Permissions,
    /// Whether an older console will present only a password (`PROCYCMD PW_<uuid>`).
    #[serde(default)]
    pub legacy: bool,
}

/// What a console needs for one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionOffer {
    /// Which session.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub session: SessionId,
    /// The device's certificate, PEM: the console accepts this one only.
    pub device_certificate: String,
    /// The device's name.
    pub device_name: String,
    /// Where to connect directly, best first, as `HOST:PORT`; empty when the device is met at a gateway.
    pub addresses: Vec<String>,
    /// The gateway at which the device is met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendezvous: Option<Rendezvous>,
    /// Compact ticket; empty for a legacy session.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Password))]
    pub ticket: Secret,
    /// Session password (for a legacy session: a UUID).
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Password))]
    pub password: Secret,
    /// Seconds until the offer ends.
    pub expires_in_seconds: u32,
}

/// The console's end of a rendezvous at a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rendezvous {
    /// The gateway's name.
    pub gateway: String,
    /// Where the console reaches the gateway, best first for where the console is, as `HOST:PORT`.
    pub addresses: Vec<String>,
    /// PEM roots that the gateway's certificate may come from.
    pub roots: Vec<String>,
    /// The console's one-time token.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Password))]
    pub token: Secret,
}

/// A gateway: `GET /gateways`, `GET /gateways/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gateway {
    /// Its name: letters, digits, dots, dashes.
    pub name: String,
    /// Where the server, and consoles of the internal network, reach it, as `HOST:PORT`.
    pub internal: String,
    /// Where devices, and consoles outside, reach it, as `HOST:PORT`.
    pub external: String,
    /// How many devices it may connect; any number when absent.
    pub limit: Option<u32>,
    /// Whether the server's uplink to it stands.
    pub attached: bool,
    /// Since when, or when the last uplink ended.
    pub since: Option<i64>,
    /// Why there is no uplink, as a sentence.
    pub trouble: Option<String>,
    /// Version of the gateway, as it says.
    pub version: Option<String>,
    /// Devices of this server that are linked through it.
    pub devices: u32,
    /// Until when the certificate is valid that the server made for it; absent for a chain of its own.
    pub certificate_until: Option<i64>,
}

/// Makes a gateway: `POST /gateways`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewGateway {
    /// Its name: letters, digits, dots, dashes.
    pub name: String,
    /// Where the server reaches it: `HOST` or `HOST:PORT` (8443).
    pub internal: String,
    /// Where devices reach it, if elsewhere.
    #[serde(default)]
    pub external: Option<String>,
    /// Further names and addresses for its certificate.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// How many devices it may connect.
    #[serde(default)]
    pub limit: Option<u32>,
    /// PEM root of a chain that the gateway has already; without it the server makes a chain and a key.
    #[serde(default)]
    pub root: Option<String>,
}

/// A gateway that was just made, and what it needs: the only time that its key leaves the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GatewayKeystore {
    /// Certificates of the servers that may attach to it, PEM (`servers.pem`).
    pub servers: String,
    /// Its chain, PEM, its own certificate first (`chain.pem`); absent for a chain of its own.
    pub chain: Option<String>,
    /// Its key, PEM (`key.pem`); absent for a chain of its own.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Password))]
    pub key: Option<Secret>,
}

/// Changes a gateway: `PATCH /gateways/{name}`. What is absent stays.
#[derive(Clone, Default, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GatewayChange {
    /// Where the server reaches it.
    #[serde(default)]
    pub internal: Option<String>,
    /// Where devices reach it.
    #[serde(default)]
    pub external: Option<String>,
    /// How many devices it may connect; 0 for any number.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// Moves a device to a gateway, or takes its gateways away: `PUT /devices/{device}/gateway`. The answer is the command that
/// the device was given ([`CommandInfo`]); the device keeps its ways unless the new one works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceGateway {
    /// The gateway; nothing takes gateways away, which only a device that is linked directly accepts.
    pub gateway: Option<String>,
}

/// A session on file: `GET /sessions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionInfo {
    /// Which session.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub session: SessionId,
    /// Device's name.
    pub device_name: String,
    /// Device.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub device: DeviceId,
    /// Account of the operator.
    pub user: String,
    /// Why, as the operator said it.
    pub reason: String,
    /// What the operator may do.
    pub permissions: Permissions,
    /// How far it is.
    pub state: SessionState,
    /// When it was asked for.
    pub created_at: i64,
    /// When the viewer saw the screen.
    pub started_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// Stable code of its end.
    pub end_code: Option<String>,
    /// Its end as a sentence.
    pub end_sentence: Option<String>,
    /// Length in milliseconds, as the device measured it.
    pub duration_ms: Option<u64>,
    /// Bytes from the console to the device.
    pub bytes_to_device: Option<u64>,
    /// Bytes from the device to the console.
    pub bytes_to_console: Option<u64>,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Asked for; the ticket was not yet presented.
    Offered,
    /// The device was allowed to begin.
    Allowed,
    /// The viewer sees the screen.
    Running,
    /// It ended; its record is complete.
    Ended,
    /// It never began.
    Refused,
}

/// One line of the audit log: `GET /audit`, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Counts up; no number is missing.
    pub number: u64,
    /// When.
    pub at: i64,
    /// Account, `device:UNITID`, or `server`.
    pub actor: String,
    /// What was done, a stable word such as `key.created`.
    pub action: String,
    /// To what.
    pub subject: String,
    /// How it went: `ok` or a refusal code.
    pub outcome: String,
    /// More, for a person.
    pub detail: String,
}

/// An error (RFC 9457), content type `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// Stable code.
    pub code: String,
    /// One sentence for a person: what happened and what they can do.
    pub detail: String,
}
