package cutover

import "slices"

// Class is what the comparison makes of one observation.
type Class string

// The classes, in the order in which they are tried.
const (
	Unsettled       Class = "X1"  // outside the window, or not settled
	PollerBlind     Class = "X2"  // the poller had no observation
	ReceiverDown    Class = "X3"  // the receiver or the webhook was known to be off
	WebhookFirst    Class = "B1"  // both, the webhook first
	PollerFirstR    Class = "B2r" // both, the poller first, as the webhook had to retry
	PollerFirstS    Class = "B2s" // both, the poller first, as the first attempt was slow
	SameChange      Class = "B3"  // one more event of a change that both saw
	NotWatched      Class = "W1"  // webhook only: the poller does not watch the ticket
	Overwritten     Class = "W2"  // webhook only: overwritten between two polls
	Unmoved         Class = "W3"  // webhook only: updated_at was not moved
	PollerMissed    Class = "W4"  // webhook only: the poller was blind
	CreatedDeleted  Class = "W5"  // webhook only: the ticket came or went meanwhile
	NoEvent         Class = "W6"  // a test, a resend, a backfill
	Pending         Class = "P1"  // poll only: still to be delivered
	Abandoned       Class = "P2"  // poll only: the sender gave up
	Rejected        Class = "P3"  // poll only: the receiver refused it
	NotSubscribed   Class = "P4"  // poll only: the webhook is not set up for it
	NoType          Class = "P5"  // poll only: no event type tells of it
	Disabled        Class = "P6"  // poll only: the webhook was disabled
	NeverSent       Class = "P7"  // poll only: the sender lost it
	Noise           Class = "P8"  // poll only: no change of the ticket
	StalePayload    Class = "M1"  // the payload is older than its event
	Followed        Class = "M2"  // the payload has a later change in it
	FieldsDiffer    Class = "M3"  // same updated_at, other fields
	FieldsMissing   Class = "M4"  // the payload leaves fields out
	OutOfOrder      Class = "O1"  // a later event of the ticket came before
	SameMoment      Class = "O2"  // another event of the ticket has the same occurred_at
	RetriedDelivery Class = "D1"  // one more copy, of a later attempt
	SameDelivery    Class = "D2"  // one more copy of the same attempt
	OtherBody       Class = "D3"  // one more copy that says something else
	Unexplained     Class = "U"
)

// Weight says what a class does to the verdict.
type Weight string

// The weights.
const (
	Good      Weight = "good"      // both pipelines agree
	Explained Weight = "explained" // they differ, and it is known why
	Exposed   Weight = "exposure"  // nothing was wrong with the webhook but that it was off
	ByDesign  Weight = "by design" // webhooks cannot tell: a reconciler must
	Lost      Weight = "missed"    // counts against webhooks
	Mismatch  Weight = "mismatch"  // the webhook said something else than the poll
	Misset    Weight = "setup"     // the webhook is not set up for it
	Alarm     Weight = "alarm"
	Doubt     Weight = "unexplained"
)

// ClassInfo is what people read about a class.
type ClassInfo struct {
	Class  Class
	Weight Weight
	Title  string
}

// Classes returns what there is to know about all classes, in their order.
func Classes() []ClassInfo {
	return []ClassInfo{
		{Unsettled, Explained, "outside the window, or not settled yet"},
		{PollerBlind, Explained, "the poller had no observation"},
		{ReceiverDown, Exposed, "the receiver or the webhook was off"},
		{WebhookFirst, Good, "both, the webhook first"},
		{PollerFirstR, Good, "both, the poller first: the webhook had to retry"},
		{PollerFirstS, Good, "both, the poller first: the first attempt was slow"},
		{SameChange, Good, "both, one more event of the same change"},
		{NotWatched, Explained, "webhook only: a ticket that the poller does not watch"},
		{Overwritten, Good, "webhook only: overwritten between two polls"},
		{Unmoved, Good, "webhook only: does not move updated_at"},
		{PollerMissed, Good, "webhook only: the poller was blind then"},
		{CreatedDeleted, Explained, "webhook only: the ticket came or went meanwhile"},
		{NoEvent, Explained, "no event: a test, a resend, a backfill"},
		{Pending, Explained, "poll only: late, the sender still tries"},
		{Abandoned, Lost, "poll only: the sender gave up"},
		{Rejected, Lost, "poll only: the receiver refused it"},
		{NotSubscribed, Misset, "poll only: not subscribed, or filtered out"},
		{NoType, ByDesign, "poll only: no event type tells of it"},
		{Disabled, Exposed, "poll only: the webhook was disabled"},
		{NeverSent, Lost, "poll only: the sender never sent it"},
		{Noise, Explained, "poll only: no change of the ticket"},
		{StalePayload, Mismatch, "the payload is older than its event"},
		{Followed, Explained, "the payload has a later change in it already"},
		{FieldsDiffer, Mismatch, "fields differ at the same updated_at"},
		{FieldsMissing, Explained, "the payload leaves fields out"},
		{OutOfOrder, Explained, "came after a later event of its ticket"},
		{SameMoment, Explained, "has the occurred_at of another event of its ticket"},
		{RetriedDelivery, Explained, "duplicate: the sender tried again"},
		{SameDelivery, Explained, "duplicate: the same attempt twice"},
		{OtherBody, Alarm, "duplicate with another body"},
		{Unexplained, Doubt, "unexplained"},
	}
}

// Info returns what there is to know about the class.
func (c Class) Info() ClassInfo {
	all := Classes()
	if i := slices.IndexFunc(all, func(i ClassInfo) bool { return i.Class == c }); i >= 0 {
		return all[i]
	}
	return ClassInfo{c, Doubt, "unexplained"}
}

// Kind is what an observation is of. Each kind has classes of its own.
type Kind string

// The kinds.
const (
	// ChangeSeen is a change that the poller saw: a ticket and an updated_at, once
	// however often it was seen. It is in B, P, X or U. Coverage counts these.
	ChangeSeen Kind = "change"
	// EventKnown is an event that was received, or that the feed or the log of
	// deliveries has, once however often it came. It is in B or M if it tells of a
	// change that the poller saw, else in W; in P if it did not get through.
	EventKnown Kind = "event"
	// CopyGot is one webhook request. It is in D, O or W6, or in the class of its
	// event.
	CopyGot Kind = "receipt"
	// StateRead is a ticket as a closing sweep read it. It has the class of the
	// change or event that had told of it.
	StateRead Kind = "truth"
	// PollFailed is a request of the poller without an observation: X2.
	PollFailed Kind = "poll"
	// TimeLost is a gap: X2 or X3.
	TimeLost Kind = "gap"
	// LineBroken is an entry that says nothing, for want of a time or a ticket: U.
	LineBroken Kind = "entry"
)
