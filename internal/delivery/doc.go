// Package delivery holds the rules of webhooks as pure values: which webhook
// gets which event, what the body of its request is, what an answer means, when
// the next attempt is due, and when a webhook has failed for so long that it is
// switched off.
//
// Nothing here waits, stores or sends. internal/store keeps the values,
// internal/egress makes the request and returns an Answer, and
// internal/dispatch drives both with the verdicts of this package. The address
// of a webhook is judged by internal/egress, its signature is made by package
// webhook. Every function takes the time and the random number it needs as an
// argument, so that all of them can be tested by tables and properties.
//
// The rules come from the guide and from contract sections 3.3 to 3.9 and 4.4
// to 4.11. All values are safe for concurrent reads; only Spec.Validate, the
// methods of *Health, and Put and Remove of Subscriptions change anything.
package delivery
