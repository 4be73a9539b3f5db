//! The answers that never change: what tools read to find their way before they touch a resource.

use serde_json::{Value, json};

use super::super::azure_arm::{REGION, resource_id};
use super::super::azure_sign_in::AzureSignIn;
use super::super::call::Call;
use super::super::{Endpoints, Environment};

/// The cloud's own description. Its shape depends on the version asked: a few fields, a list of clouds, one cloud.
pub(super) fn metadata(endpoints: &Endpoints, sign_in: &AzureSignIn, call: &Call) -> Value {
    let authentication = json!({
        "loginEndpoint": endpoints.sign_in,
        "audiences": [
            "https://management.core.windows.net/",
            "https://management.azure.com/",
            endpoints.resource_manager,
        ],
        "tenant": sign_in.tenant(),
        "identityProvider": "AAD",
    });
    let version = call.query("api-version").unwrap_or_default();
    if version < "2018" {
        return json!({
            "galleryEndpoint": endpoints.resource_manager,
            "graphEndpoint": endpoints.sign_in,
            "portalEndpoint": endpoints.resource_manager,
            "authentication": authentication,
        });
    }
    let cloud = json!({
        "name": "PgrotateSandbox",
        "portal": endpoints.resource_manager,
        "authentication": authentication,
        "media": "https://rest.media.azure.net",
        "graphAudience": "https://graph.windows.net/",
        "graph": "https://graph.windows.net/",
        "gallery": endpoints.resource_manager,
        "batch": "https://batch.core.windows.net/",
        "resourceManager": endpoints.resource_manager,
        "sqlManagement": endpoints.resource_manager,
        "vmImageAliasDoc": endpoints.resource_manager,
        "activeDirectoryDataLake": "https://datalake.azure.net/",
        "microsoftGraphResourceId": "https://graph.microsoft.com/",
        "appServiceResourceId": "https://appservice.azure.com",
        "suffixes": {
            "keyVaultDns": host(&endpoints.key_vault),
            "storage": "core.windows.net",
            "sqlServerHostname": "database.windows.net",
            "postgresqlServerEndpoint": "postgres.database.azure.com",
            "acrLoginServer": "azurecr.io",
        },
    });
    if version < "2022" { json!([cloud]) } else { cloud }
}

fn host(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, host)| host)
}

pub(super) fn tenants(tenant: &str) -> Value {
    json!({
        "value": [{
            "id": format!("/tenants/{tenant}"),
            "tenantId": tenant,
            "countryCode": "DE",
            "displayName": "MindWell",
            "domains": ["mindwell.onmicrosoft.com"],
            "tenantCategory": "Home",
            "defaultDomain": "mindwell.onmicrosoft.com",
            "tenantType": "AAD",
        }],
    })
}

pub(super) fn subscription(id: &str, environment: &str, tenant: &str) -> Value {
    json!({
        "id": format!("/subscriptions/{id}"),
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": id,
        "tenantId": tenant,
        "displayName": format!("mindwell {environment}"),
        "state": "Enabled",
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "PayAsYouGo_2014-09-01",
            "spendingLimit": "Off",
        },
    })
}

pub(super) fn locations(subscription: &str) -> Value {
    json!({
        "value": [{
            "id": format!("/subscriptions/{subscription}/locations/{}", REGION.1),
            "name": REGION.1,
            "type": "Region",
            "displayName": REGION.0,
            "regionalDisplayName": "(Europe) West Europe",
            "metadata": {"regionType": "Physical", "regionCategory": "Recommended", "geography": "Europe"},
        }],
    })
}

pub(super) fn resource_group(environment: &Environment) -> Value {
    let name = environment.resource_group();
    json!({
        "id": format!("/subscriptions/{}/resourceGroups/{name}", environment.subscription),
        "name": name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": REGION.1,
        "tags": {"environment": environment.name},
        "properties": {"provisioningState": "Succeeded"},
    })
}

/// The resources of a subscription, by the filter that tools use to find one: `resourceType eq '…' and name eq '…'`.
pub(super) fn resources<'a>(
    environments: impl Iterator<Item = &'a Environment>,
    applications: impl Fn(&Environment) -> Vec<String>,
    call: &Call,
) -> Value {
    let filter = call.query("$filter").unwrap_or_default().to_ascii_lowercase();
    let wanted = |attribute: &str, value: &str| {
        !filter.contains(&format!("{attribute} eq "))
            || filter.contains(&format!("{attribute} eq '{}'", value.to_ascii_lowercase()))
    };
    let all = environments.flat_map(|environment| {
        let applications =
            applications(environment).into_iter().map(|application| ("Microsoft.Web/sites", application));
        [
            ("Microsoft.DBforPostgreSQL/flexibleServers", environment.server()),
            ("Microsoft.KeyVault/vaults", environment.vault()),
        ]
        .into_iter()
        .chain(applications)
        .map(move |(kind, name)| (environment, kind, name))
    });
    let shown = all.filter(|(_, kind, name)| wanted("resourcetype", kind) && wanted("name", name));
    let shown: Vec<Value> = shown
        .map(|(environment, kind, name)| {
            json!({
                "id": resource_id(environment, &format!("{kind}/{name}")),
                "name": name,
                "type": kind,
                "location": REGION.1,
                "tags": {"environment": environment.name},
            })
        })
        .collect();
    json!({"value": shown})
}

pub(super) fn provider(subscription: &str, namespace: &str) -> Value {
    json!({
        "id": format!("/subscriptions/{subscription}/providers/{namespace}"),
        "namespace": namespace,
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationRequired",
        "resourceTypes": [],
    })
}

/// What the region offers: the vendor's tool reads it before it changes a server.
pub(super) fn capabilities() -> Value {
    let sku = json!({
        "name": "Standard_D2ds_v5",
        "vCores": 2,
        "supportedIops": 3200,
        "supportedMemoryPerVcoreMb": 4096,
        "supportedZones": ["1", "2", "3"],
        "supportedHaMode": ["SameZone", "ZoneRedundant"],
    });
    let storage = json!({
        "name": "ManagedDisk",
        "defaultStorageSizeMb": 131_072,
        "supportedStorageMb": [{
            "storageSizeMb": 131_072,
            "supportedIops": 500,
            "defaultIopsTier": "P10",
            "supportedIopsTiers": [{"name": "P10", "iops": 500}, {"name": "P15", "iops": 1100}],
        }],
    });
    json!({
        "value": [{
            "name": "FlexibleServerCapabilities",
            "supportedServerEditions": [{
                "name": "GeneralPurpose",
                "defaultSkuName": "Standard_D2ds_v5",
                "supportedStorageEditions": [storage],
                "supportedServerSkus": [sku],
            }],
            "supportedServerVersions": [{"name": "15", "supportedVersionsToUpgrade": ["16"]}],
            "supportedFeatures": [
                {"name": "OfferRestricted", "status": "Disabled"},
                {"name": "ZoneRedundantHa", "status": "Enabled"},
                {"name": "GeoBackup", "status": "Enabled"},
            ],
        }],
    })
}
