// Package webhook is what an integrator imports first: the envelope that
// ticket webhooks carry, the X-Alga-Signature scheme from both ends, and an
// http.Handler that turns verified deliveries into calls of one function.
//
// # Quick start
//
//	secrets := webhook.NewSecretList(os.Getenv("WEBHOOK_SECRET"))
//	http.Handle("/webhooks/alga", webhook.NewHandler(secrets.All,
//		func(ctx context.Context, e *webhook.Envelope) error {
//			t, err := e.Ticket()
//			if err != nil {
//				return err
//			}
//			return react(ctx, t)
//		}))
//
// [Handler] does what the guide asks of a receiver, in this order: it reads the
// raw body up to a bound, verifies the signature over exactly those bytes,
// parses the envelope, ignores what the integrator did not ask for, claims the
// event so that a duplicate does not react twice, reacts, and answers 200 only
// when the reaction is done. An error or a panic in the reaction gives the claim
// back and answers 500, so that the sender tries again.
//
// # What a reaction must expect
//
// Delivery is at least once and in any order. Deduplication makes a second
// reaction to one event rare, not impossible: a process that dies between the
// reaction and the record of it will see the event again. Order events of one
// ticket by OccurredAt. Every field but the ticket's id can be missing, because
// a webhook's payload_fields can remove it.
//
// The sender waits 10 seconds for the answer and then counts a failure. Work
// that takes longer belongs in a queue: [NewInboxHandler] answers as soon as the
// event is durable, and package inbox works on it afterwards.
//
// An event that occurred before one of the same ticket that is done has
// Claim.Stale set, or is skipped with [WithoutStale]. A payload can be older than
// its event, because some senders keep tickets in a cache; [Refetch] gets the
// current one.
//
// # Pieces
//
// [Sign] and [Verify] are the signature alone. [Verifier] adds secrets that can
// be replaced at run time ([SecretList], [SecretFile]), and Middleware for
// programs that have a handler of their own. [Parse] checks the envelope against the headers, which the
// signature does not cover. [Deduper] is the memory of the handler; [Memory]
// implements it for one process, and package inbox on a database.
// [Handler.Counts] says how many requests had each [Outcome], test deliveries and
// unknown types included.
//
// The package uses the standard library only. It leaves sending, retrying,
// storing and calling the ticket API to others: the client package has the API.
package webhook
