// Package sandbox plays the billing partner: an in-memory server that speaks the
// Vendor-API as a vendor's client meets it, with the human who maps accounts,
// the rate limit, the refusals and the accidents of a network, and a tape of
// everything that reached it. Tests assert on the tape; people try the product
// against it without an account at the partner.
//
// It deliberately knows nothing of the program under test: it imports nothing of
// ours, so that a misunderstanding of the partner cannot be shared by both sides.
// It opens no listener, starts no goroutine, writes no file and logs nothing. It
// guards its control API with nothing: never expose it to a network you do not trust.
//
// # The partner's side
//
// Below [BasePath], in the MSPCentric dialect of the Vendor-API. Authorization is
// "Bearer " + base64(vendorToken ":" partnerToken), standard alphabet with padding.
//
//	POST  /organization/accounts       {"vendorAccountId":"a-17","name":"Acme","externalId":"x"}   201, 409 exists
//	POST  /organization/services       {"id":"backup","name":"Backup","description":"…"}           201, 409 exists
//	PATCH /status/mapping              body ignored                                                200 {"status":200,"message":"…","data":{"integrationId":"int-1","status":"mapping"}}
//	POST  /service/{serviceId}/count   {"unitCount":42.5,"accountId":"a-17"}                       201 {"status":201,"message":"…"}
//
// A refusal is {"statusCode":…,"message":"…"}. One request is judged in this order:
// 401 token, 429 rate limit, the fault plan, 404/405 route, 413 body too large, 400 wrong
// field, 409 integration not ready (Config.NotReadyStatus), 404 unknown or unmapped account
// or service, success. Every answer, torn connections aside, carries X-Request-Id.
//
// A unit count is a decimal text from the wire to the report; it is never a float.
//
// # The control API
//
// Bodies are JSON; a name holds a slash and is one escaped segment: acme%2Fmsp-0042.
// Errors are RFC 9457 problem documents.
//
//	GET    /                                       a page for people
//	GET    /sandbox/report[?integration=NAME]      see [Report]
//	GET    /sandbox/tape[?integration=&account=&service=&after=SEQ]   NDJSON of [Record]
//	POST   /sandbox/integrations                   {"name":"acme/msp-0042","vendorToken":"v","partnerToken":"p"}: all optional;
//	                                               201 with the same fields and "integrationId"; missing tokens are drawn at random
//	POST   /sandbox/integrations/{name}/human      {"action":"map","accounts":["a-17"],"services":"all"} or {"action":"finish"}
//	POST   /sandbox/integrations/{name}/status     {"status":"pending"}
//	POST   /sandbox/integrations/{name}/reset      no body: the user pressed Authenticate again
//	GET    /sandbox/faults                         the plan in force
//	PUT    /sandbox/faults                         {"seed":7,"rules":[{"name":"flaky","operation":"count","probability":0.1,
//	                                               "effect":"status","status":503,"message":"try later","retryAfter":"2s"}]}; see [Rule]
//	DELETE /sandbox/faults                         no more faults
//
// The five calls that change an integration or the plan answer 204, except the creation (201).
package sandbox
