"""The texts and bytes that objects show of themselves: looked at one by one, none is a secret.

By class, the fields that its repr shows and that can hold text or bytes. A field that is not here and is shown fails a
test: give it `repr=False`, or, if it is fit for any log, list it.
"""

from collections.abc import Mapping

SHOWN: Mapping[str, str] = {
    "adapters.entropy.failures.HealthTestFailed": "test",
    "adapters.entropy.failures.SourceFailed": "kind",
    "adapters.kms.credentials.Credentials": "access_key_id",
    "adapters.kms.credentials.CredentialsError": "kind",
    "adapters.kms.error_table.ErrorRule": "message",
    "adapters.kms.pacer.CalledOff": "text",
    "adapters.kms.sts.OidcRole": "oidc_provider_arn role_arn session_name",
    "adapters.kms.transport.Reply": "headers",
    "adapters.ledger.files.LedgerFileError": "text",
    "adapters.ledger.records.Unreadable": "text",
    "adapters.ledger.sealing.CannotOpen": "text",
    "adapters.ledger.sealing.Place": "algorithm cmk kind record_id",
    "domain.attempt.Attempt": (
        "algorithm audit_line caller check_value dkms_instance_id entropy_source entropy_tests kms_request_id "
        "material_id parameters receipt record_id region request_digest request_id wrapping_public_key_digest"
    ),
    "domain.attempt.Creation": "alias key_id tag",
    "domain.attempt.Failure": "message metadata reason",
    "domain.attempt.HandedOut": "algorithm token_digest",
    "domain.audit.AuditEvent": "fields id",
    "domain.errors.BrokerError": "message",
    "domain.errors.InvalidField": "field message",
    "domain.errors.KmsError": "message",
    "domain.errors.ReasonRule": "advice",
    "domain.external_key.CmkName": "account key_id region",
    "domain.external_key.ExternalKey": "arn dkms_instance_id origin",
    "domain.external_key.KeyReference": "account key_id",
    "domain.external_key.NewKey": "alias description tags",
    "domain.import_parameters.ImportParameters": "wrapping_public_key_der",
    "domain.import_protocol.Wrapped": "algorithm",
    "domain.key_check_value.KeyCheckValue": "value",
    "domain.key_spec.KeySpec": "kms_name",
    "domain.policy.Access": "caller instance key_id rpc",
    "domain.policy.Decision": "why",
    "domain.policy.Rule": "name new_key_tags rpcs",
    "domain.wrapping.WrappingAlgorithm": "kms_name",
    "policy_file._NewKeys": "aliases tags",
    "policy_file._Rule": "callers instances keys name",
    "ports.CallerCredentials": "certificate_chain_pem",
    "ports.CmkHeld": "text",
    "ports.KeyPage": "key_ids",
    "ports.KmsReply": "request_id",
    "ports.RequestKnown": "text",
    "ports.StaleVersion": "text",
    "probe.bench.Bench": "region spare_state",
    "probe.course.ProbeStopped": "text",
    "probe.findings.Answer": "detail measured question readings verdict",
    "probe.findings.Evidence": "code operation request_id what",
    "probe.findings.Question": "contract emulator title",
    "probe.findings.Report": "dkms_instance_id ended instance region run_id unaccounted",
    "probe.findings.ThrowawayReport": "delete_at key_id state",
    "probe.run.Target": "name",
    "probe.throwaways.CannotTell": "text",
    "rpc.call.Call": "correlation_id method",
    "rpc.call.Noted": (
        "caller created_key_id evidence instance key_id kms_request_id parameters request_id rule wrapping_algorithm"
    ),
    "rpc.import_meter.Measured": "outcome wrapping_algorithm",
    "rpc.server.ServerTls": "certificate_chain client_ca",
    "self_tests.SelfTestFailed": "text",
    "settings.base.ConfigurationError": "text",
    "settings.broker.Pkcs11Settings": "token_label",
    "settings.kms.EcsRamRoleCredentialSettings": "metadata_endpoint role_name",
    "settings.kms.InstanceSettings": "dkms_instance_id endpoint quota_group region",
    "settings.kms.KmsSettings": "default_instance instances",
    "settings.kms.RrsaCredentialSettings": "oidc_provider_arn role_arn role_session_name sts_endpoint",
    "settings.server.JwtSettings": "audience issuer jwks_url",
    "settings.server.ServerSettings": "grpc_address http_address",
    "strict_yaml.DuplicateKeyError": "problem",
    "telemetry.upstream._LastCall": "code operation",
    "usecases.asked.Asked": "caller request_id",
    "usecases.progress.Progress": "created_key_id",
}

HIDDEN: Mapping[str, str] = {
    "adapters.kms.credentials.Credentials": "access_key_secret security_token",
    "adapters.kms.credentials_http.Connection": "proxy",
    "adapters.kms.sending.Answer": "body",
    "adapters.kms.transport.Reply": "body",
    "domain.attempt.Attempt": "import_token wrapped_key_material",
    "domain.import_parameters.ImportParameters": "import_token",
    "domain.import_protocol.Wrapped": "import_token wrapped_key_material",
    "domain.key_material.KeyMaterial": "material",
    "ports.CallerCredentials": "bearer_token",
    "rpc.server.ServerTls": "private_key",
    "settings.kms.InstanceSettings": "proxy",
    "settings.kms.UriCredentialSettings": "uri",
    "usecases.import_wrapped_key_material.Given": "import_token wrapped_key_material",
}
"""The secrets among the fields, so that a renamed one is not forgotten: each is there and is not shown."""
