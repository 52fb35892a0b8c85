// Package sandbox plays the billing partner: an in-memory server that speaks the
// Vendor-API as a vendor's client meets it, in either of its dialects, and the OEM-API;
// with the wizard in which a human maps accounts and approves what is billed, the rate
// limit, the refusals and the accidents of a network, the webhook the partner sends, and a
// tape of everything that reached it. Tests assert on the tape; people try the product against it without an
// account at the partner.
//
// It deliberately knows nothing of the program under test: it imports nothing of
// ours, so that a misunderstanding of the partner cannot be shared by both sides.
// It opens no listener, keeps no goroutine, writes no file and logs nothing. Where it is
// told to send the webhook, it connects to loopback addresses only. It guards its control
// API with nothing: never expose it to a network you do not trust.
//
// # The partner's side
//
// Below [BasePath]. T is base64(vendorToken ":" partnerToken), standard alphabet with
// padding. An integration has one dialect; a token in the other's header is a 401.
//
// A refusal is {"statusCode":…,"message":"…"}. One request is judged in this order:
// 401 token, 429 rate limit, the fault plan, 404/405 route, 413 body too large, 400 wrong
// field; then, for a count, 409 integration not ready (Config.NotReadyStatus), 403 usage
// anomaly, 404 unknown or unmapped account or service; then success. Every answer, torn
// connections aside, carries X-Request-Id.
//
// A unit count is a decimal text from the wire to the report; it is never a float.
//
// The MSPCentric dialect, "Authorization: Bearer T":
//
//	POST  /organization/accounts       {"vendorAccountId":"a-17","name":"Acme","externalId":"x"}   201, 409 exists
//	POST  /organization/services       {"id":"backup","name":"Backup","description":"…"}           201, 409 exists
//	PATCH /status/mapping              body ignored                                                200 {"status":200,"message":"…","data":{"integrationId":"int-1","status":"mapping"}}
//	POST  /service/{serviceId}/count   {"unitCount":42.5,"accountId":"a-17"}                       201 {"status":201,"message":"…"}
//
// The Gradient dialect, "GRADIENT-TOKEN: T":
//
//	GET   /                                  200 {"status":200,"message":"…","data":{"_id":…,"id":…,"name":…,"skus":[{"_id":…,"id":…,"name":…}]}}
//	GET   /organization                      200 {"organizationId":…,"name":…,"vendorId":…,"vendorName":…,"integrationId":…,"status":…,"lastSyncedAt":…}
//	PATCH /organization/status/{status}      inactive, pending or active in lower case: 200 with an envelope, else 400
//	GET   /organization/accounts             200 [{"id":…,"name":…,"description":…,"isMapped":…,"mappingId":…}]; ?returnUnmapped=false: the mapped ones
//	POST  /organization/accounts             {"id":"a-17","name":"Acme","description":"…"} or an array of them: 201 with an array, 409 exists
//	PATCH /organization/accounts/{id}        {"name":"…","description":"…","isActive":true}, any of them: 200 {"id":…,"name":…,"description":…}, 404
//	POST  /organization/services             as for accounts
//	POST  /service/{serviceId}/count         {"accountId":"a-17","unitCount":42.5}: 201; ?no_build=true leaves the billing view as it is
//
// Where the Gradient documentation is silent, the sandbox is strict, so that a client that
// gets on with it gets on with either behaviour: an account that exists is a 409 as a
// service is (clients seen in public list accounts and post what is missing), an array with
// one such creates nothing, and a 429 comes without Retry-After. No review stands between
// mapping and counts: in pending a count is a 404 until its account and service are mapped,
// and the first accepted one makes the integration active.
//
// The OEM-API, below [OEMBasePath]. Every body has who asks, "clientId", "clientSecret",
// "grantType":"client_credentials" and "scope":"vendor_manage", and where an organization is marked
// its "organizationOemToken":
//
//	POST   /organization           {"data":{"name":…,"email":…,"firstName":…,"lastName":…,"vendorUserId":…,"vendorOrganizationId":…}}: the last is optional;
//	                               201 {"status":201,"message":"…","organizationOemToken":"…"}, 409 name, id or e-mail taken
//	POST   /user                   {"data":{"email":…,"firstName":…,"lastName":…,"vendorUserId":…,"vendorOrganizationId":…}}: without the last the user
//	                               joins by the domain of the e-mail; 201 as above, also when the user is there already; 404, 409
//	DELETE /user                   organization, {"data":{"vendorUserId":…,"email":…}}: 201 {"status":201,"message":"…"}, 404
//	POST   /session                organization, {"data":{"vendorUserId":…}}: 201 {…,"sessionToken":"…","url":"…"}, 404; see below
//	POST   /vendor                 200 {"vendors":[{"id":…,"name":…,"integrationStatus":"active","integrationType":"external",
//	                               "integrationCredentialTemplate":{"Account number":""}}],…}
//	POST   /integration            organization, {"data":{"vendorId":…,"integrationCredentials":{"Account number":"17"}}}: every label of the template;
//	                               201 {"integration":{"id":…,"vendorId":…},…}, 404, 409 there is one
//	POST   /integration            organization, {"integrationType":"external","organizationId":…,"vendorId":…}:
//	                               201 {"integration":{"id":…,"vendorId":…,"integrationKind":"external"},"partnerApiKey":"…",…}
//	POST   /integration/list       organization: 200 {"integrations":[{"id":"int-1","vendorId":"vendor-acme",
//	                               "integrationCredentialTemplate":[{"Vendor API key":""}],"integrationStatus":"mapping"}],…}
//	PATCH  /integration/{id}       organization, {"data":{"integrationCredentials":{"Account number":"18"}}}: labels that are left out keep
//	                               their value; 200 {"integration":{"id":…,"vendorId":…},…}, 404
//
// An organization has one token, for ever. It is made by POST /organization, or by the first
// integration named after it: the part of the name after the first slash, or all of a name without
// one, is the vendorOrganizationId. Where a vendor gave none the partner's own id stands for it. An
// external integration is named vendor/organization and speaks the MSPCentric dialect with
// the token of its [Vendor] and the partnerApiKey, which is shown once. Gradient has no such API: an
// integration of that dialect is in no list, and has no token. Statuses are those of [Status], or
// see [StatusWords].
//
// A refusal of the OEM-API is {"status":…,"message":"…"}. Who is asking stands in the body, so
// the order is another one: 404/405 route, 413 body too large, 400 no JSON object or credentials
// that are no strings, 401 client, grant type or scope, 403 organization's token, 429 rate limit of
// the organization or, about none, of the client, the fault plan, 400 a field that is missing, of the
// wrong type or not known; then the rest. The answer of what was done is lost by the faults
// [ResetAfter], [StatusAfter], [EmptyBody] and [GarbageBody].
//
// # The wizard
//
// Below [WizardPath], for people. A session's url lets one user in, once and for
// Config.LinkLifetime; opening it begins a visit of eight hours, which a cookie carries. A page that
// only looks is a GET and changes nothing; a form carries a secret of its visit, and one without it
// changes nothing either.
//
// Steps: welcome, connect, PSA, accounts, services, review, reconcile. Accounts and services can be
// mapped as soon as a PSA is connected and the vendor has asked for it (PATCH /status/mapping). What
// is mapped there is what counts are judged by: excluded and undecided are not mapped. Accepting the
// review is [Sandbox.Finish]; it wants at least one account and one service mapped. Authenticating
// again is [Sandbox.Reset]. Reconciling compares the contracts of the PSA with the accepted counts of
// all integrations of the organization, see [Delta], and approving a delta changes the contract.
//
// The webhook that Config.Inform orders is sent after every form that was carried out, and the next
// page says what came of it.
//
// A link that was asked for sends the automatic human of [HumanAuto] away from the integrations
// of that organization, for good: a person will map.
//
// # The control API
//
// Bodies are JSON; a name holds a slash and is one escaped segment: acme%2Fmsp-0042.
// Statuses are those of [Status] in either dialect. Errors are RFC 9457 problem documents.
//
//	GET    /                                       a page for people
//	GET    /sandbox/report[?integration=NAME]      see [Report]
//	GET    /sandbox/tape[?integration=&organization=&account=&service=&after=SEQ]   NDJSON of [Record]
//	POST   /sandbox/integrations                   {"name":"acme/msp-0042","vendorToken":"v","partnerToken":"p","dialect":"gradient"}: all optional;
//	                                               201 with the same fields, "integrationId" and "oemToken"; missing tokens are drawn at random
//	POST   /sandbox/integrations/{name}/human      {"action":"map","accounts":["a-17"],"services":"all"}, the same with "unmap", or {"action":"finish"}
//	POST   /sandbox/integrations/{name}/mapping    {"accounts":{"a-17":"miller"},"services":{"backup":["backup","storage"]},"excludeAccounts":["a-18"],
//	                                               "excludeServices":"all"}: to companies and services of the PSA, see [Targets]
//	POST   /sandbox/integrations/{name}/suggestions   no body: maps what has equal names; 200 {"accounts":3,"services":1}
//	POST   /sandbox/integrations/{name}/status     {"status":"pending"}
//	POST   /sandbox/integrations/{name}/reset      no body: the user disconnected, or pressed Authenticate again
//	POST   /sandbox/integrations/{name}/tokens     no body: a new partner token, the old one is good no more; 201 as for the creation
//	DELETE /sandbox/integrations/{name}/tokens     revokes: every request is a 401 until there is a new token
//	POST   /sandbox/integrations/{name}/anomaly    {"on":true}: counts are refused with 403; {"on":false} ends it
//	POST   /sandbox/integrations/{name}/inform     {"url":"http://127.0.0.1:8080/…","header":"X-Secret","secret":"s","times":5,"spelling":"config_upate",
//	                                               "active":"string","shuffle":true,"seed":7}: sends the webhook, all but url optional, see [Inform];
//	                                               200 {"answers":[202,…]}, 502 when a request got no answer
//	GET    /sandbox/integrations/{name}/oem-token  200 {"oemToken":"…"}: its organization's, 404 in the Gradient dialect
//	GET    /sandbox/organizations                  200 [{"name":"msp-0042","organizationId":"org-1","title":"Best MSP","users":[…],"integrations":["acme/msp-0042"]}]
//	POST   /sandbox/organizations/{name}/sessions  {"vendorUserId":"u-1"}: 201 {"url":"…"}, a link into the wizard
//	GET    /sandbox/psas                           200 with an array of [PSA]: what an organization may connect
//	POST   /sandbox/organizations/{name}/psa       {"id":"lantern"}
//	GET    /sandbox/organizations/{name}/psa       200 with a [PSA] whose contracts are as they are now, 409 when none is connected
//	GET    /sandbox/organizations/{name}/deltas    200 with an array of [Delta]
//	POST   /sandbox/organizations/{name}/approvals {"by":"Ann","deltas":[{"company":"miller","service":"backup","units":"42"}]} or {"all":true};
//	                                               200 with the array of [Approval] made, 409 when other units are reported by now
//	GET    /sandbox/organizations/{name}/approvals 200 with all of them, the oldest first
//	GET    /sandbox/vendors                        200 with an array of [Vendor], tokens included
//	GET    /sandbox/oem                            200 {"clientId":"…","clientSecret":"…","statuses":"four"}: the client that the OEM-API lets in
//	PUT    /sandbox/oem                            the same, what is left out stays; {"statuses":"none"} leaves integrationStatus out of
//	                                               the lists, {"statuses":"three"} takes the older words
//	GET    /sandbox/faults                         the plan in force
//	PUT    /sandbox/faults                         {"seed":7,"rules":[{"name":"flaky","operation":"count","probability":0.1,
//	                                               "effect":"status","status":503,"message":"try later","retryAfter":"2s"}]}; see [Rule]
//	DELETE /sandbox/faults                         no more faults
//
// A call that changes something answers 204 where the table names no other status.
package sandbox
