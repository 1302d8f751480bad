package cutover

import "time"

// Report is what a record says about a cutover: a value, which the Write methods
// put into words. All durations are in seconds, all times in UTC and by the
// server's clock.
type Report struct {
	Server    string `json:"server"`
	WebhookID string `json:"webhook_id"`

	Outcome  Outcome   `json:"verdict"`
	Exit     int       `json:"exit_code"`
	Headline string    `json:"headline"`
	Blockers []Finding `json:"blockers"`  // what must be put right
	Unproved []Finding `json:"unproved"`  // what has not been seen or done yet
	Notes    []Finding `json:"reminders"` // what else to know before the cutover

	Window   Window   `json:"window"`
	Coverage Coverage `json:"coverage"`
	Recall   Recall   `json:"recall"`
	Read     Read     `json:"read_until"`
	Lag      Lag      `json:"lag"`
	Slowest  []Slow   `json:"slowest"`
	Attempts Attempts `json:"attempts"`
	Copies   Copies   `json:"copies"`
	Requests Requests `json:"requests"`
	Blind    Blind    `json:"blind"`
	Recovery Recovery `json:"recovery"`
	Clocks   Clocks   `json:"clocks"`
	Traffic  Traffic  `json:"traffic"`
	Types    []Type   `json:"event_types"`
	Drills   []Proof  `json:"drills"`
	Safety   Safety   `json:"safety"`

	Classes []ClassCount `json:"classes"`
	Rules   []RuleState  `json:"ignore_rules"`
	Waived  []string     `json:"waived_event_types"`
	Record  Counts       `json:"record"`
	Plots   Plots        `json:"plots"`

	// Rows are all observations, in the order of time.
	Rows []Row `json:"-"`

	unread bool // the record does not have what the webhook subscribes to
}

// Outcome is what a report advises.
type Outcome string

// The outcomes. The exit codes are 0, 10, 20 and 30.
const (
	Go               Outcome = "GO"
	GoWithReconciler Outcome = "GO WITH RECONCILER" // only what has no event type was missed
	Extend           Outcome = "EXTEND"             // nothing is wrong, and not enough is proved
	NoGo             Outcome = "NO-GO"
)

// Finding is something that stands between the report and GO.
type Finding struct {
	Code     string   `json:"code"`
	Title    string   `json:"title"`
	Evidence []string `json:"evidence,omitempty"`
	Cause    string   `json:"likely_cause,omitempty"`
	Command  string   `json:"next_command,omitempty"`
}

// Window is the time for which both pipelines are compared.
type Window struct {
	From     time.Time `json:"from,omitzero"` // zero: both have not run together yet
	Settled  time.Time `json:"settled"`       // what is later is judged later
	To       time.Time `json:"to"`
	Seconds  float64   `json:"seconds"`       // from From to Settled
	Weekdays []string  `json:"weekdays"`      // those with at least an hour in it
	Business float64   `json:"weekday_hours"` // hours from Monday to Friday, UTC
	PeakHour time.Time `json:"peak_hour,omitzero"`
	Peak     int       `json:"peak_changes"` // changes in that hour
	Required float64   `json:"required_seconds"`
}

// Coverage is what the verdict stands on.
type Coverage struct {
	Changes    int     `json:"changes"`       // that the poller saw in the window, whatever became of them
	Eligible   int     `json:"eligible"`      // matched or missed
	Matched    int     `json:"matched"`       // an event told of them
	Missed     int     `json:"missed"`        // P2 + P3 + P7
	Events     int     `json:"missed_events"` // further events that got lost: another one told of their change, or no poll shows it
	Rate       float64 `json:"rate"`          // matched / eligible; 0 without any
	MissBound  float64 `json:"miss_bound"`    // exact one-sided 95 % bound on the share of missed changes
	Allowed    float64 `json:"miss_allowed"`
	Needed     int     `json:"needed"` // changes, all matched, for a bound that is allowed
	PerDay     float64 `json:"changes_per_day"`
	MoreDays   float64 `json:"more_days"`            // until they are there, at this rate; -1 when there is none
	Unseen     int     `json:"only_webhooks_saw"`    // changes that no poll shows: W2
	Repeated   int     `json:"repeated_by_poller"`   // changes that the poller reacted to again
	Mismatched int     `json:"mismatched"`           // M1 + M3
	Doubtful   int     `json:"unexplained"`          // U, of all kinds
	Untold     int     `json:"untold"`               // P1 of which nothing is known yet, not even that it was sent
	Synthetic  int     `json:"edits_made_for_drill"` // drills of the kind edit
}

// Recall is how many of the changes that a third observer knows each side caught.
type Recall struct {
	Source  string  `json:"source"` // feed, sweep, or empty for none
	Changes int     `json:"changes"`
	Poller  float64 `json:"poller"`
	Webhook float64 `json:"webhook"`
}

// Read is up to when each thing that only the server knows was read; zero for
// never. Of what is later nobody can tell what became of it.
type Read struct {
	Feed       time.Time `json:"feed,omitzero"`
	Deliveries time.Time `json:"deliveries,omitzero"`
	Webhook    time.Time `json:"webhook,omitzero"`
}

// Distribution is how a duration is distributed.
type Distribution struct {
	N      int     `json:"n"`
	Median float64 `json:"p50"`
	P95    float64 `json:"p95"`
	Max    float64 `json:"max"`
}

// Lag is how long after a change each side knew, from updated_at of the changes
// that both saw.
type Lag struct {
	Poll      Distribution `json:"poll"`       // the answer was there
	FirstByte Distribution `json:"first_byte"` // a webhook request was there
	Handled   Distribution `json:"handled"`    // its reaction had ended
	Gain      Distribution `json:"gain"`       // the poll after the webhook
}

// Slow is a change of which the webhooks told late.
type Slow struct {
	Ticket    string    `json:"ticket_id"`
	UpdatedAt time.Time `json:"updated_at"`
	EventID   string    `json:"event_id"`
	Webhook   float64   `json:"webhook"` // seconds
	Poll      float64   `json:"poll"`
	Attempt   int       `json:"attempt"`
}

// Attempts is how often the sender had to try.
type Attempts struct {
	Events      int         `json:"events"`
	First       float64     `json:"first_attempt_rate"` // events that were taken at the first attempt
	Histogram   map[int]int `json:"histogram"`          // attempt -> events that were taken at it
	Longest     float64     `json:"longest"`            // from the event to the attempt that was taken
	LastFailure time.Time   `json:"last_failure,omitzero"`
}

// Copies is what came more than once, late or old.
type Copies struct {
	Receipts     int     `json:"receipts"`
	Own          int     `json:"signed"`           // signed ones, sent by the webhook itself
	Others       int     `json:"signed_by_others"` // of a backfill, by hand, or for another webhook
	Duplicates   int     `json:"duplicates"`       // D1 + D2
	OtherBody    int     `json:"other_body"`       // D3
	OutOfOrder   int     `json:"out_of_order"`
	SameMoment   int     `json:"same_occurred_at"`
	Stale        int     `json:"stale_payloads"`
	StaleShare   float64 `json:"stale_share"`   // of the events that tell of a change
	ReactedTwice int     `json:"reacted_twice"` // events whose reaction acted more than once
}

// Requests is what polling costs, and what would be saved.
type Requests struct {
	Polls        int             `json:"polls"`
	Useful       int             `json:"useful"` // showed a change
	UsefulShare  float64         `json:"useful_share"`
	Failures     map[Failure]int `json:"failures"`
	Webhook      int             `json:"webhook"`
	Refetches    int             `json:"refetches"`
	PollsPerHour float64         `json:"polls_per_hour"`
	SavedPerHour float64         `json:"saved_per_hour"`
	SavedPerDay  float64         `json:"saved_per_day"`
	SavedPerMon  float64         `json:"saved_per_month"` // of 30 days
	LimitShare   float64         `json:"limit_share"`     // of the key's rate limit that polling takes; 0 if no answer named it
}

// Blind is for how long each side could not know.
type Blind struct {
	Poller   float64 `json:"poller"`
	Receiver float64 `json:"receiver"` // it was down
	Disabled float64 `json:"disabled"` // the webhook was disabled
	Exposed  int     `json:"exposed"`  // changes in that time that no event told of: X3 + P6
}

// Recovery is what became of changes and events that nothing brought when they were
// due, whoever is to blame. They count as what they are all the same: a backfill
// proves nothing about webhooks.
type Recovery struct {
	Lost      int `json:"lost"`      // missed, exposed or unexplained: changes and events
	Recovered int `json:"recovered"` // of them, those that a backfill or a resend brought afterwards
}

// Clocks is how the clocks differ.
type Clocks struct {
	Poller   float64      `json:"server_ahead_of_poller"`
	Least    float64      `json:"server_ahead_of_poller_min"`
	Most     float64      `json:"server_ahead_of_poller_max"`
	Receiver float64      `json:"server_ahead_of_receiver"` // 0 if nothing shows that they differ
	Publish  Distribution `json:"occurred_after_updated"`
	Earliest float64      `json:"occurred_after_updated_min"`
}

// Traffic is what webhooks bring, and what of it is watched.
type Traffic struct {
	Events  int     `json:"events"`
	Watched int     `json:"watched"`
	Share   float64 `json:"watched_share"`
}

// Type is an event type that the webhook subscribes to.
type Type struct {
	Name   string `json:"name"`
	Seen   int    `json:"seen"`
	Waived bool   `json:"waived,omitempty"`
}

// Proof is whether the record proves that something was survived.
type Proof struct {
	Kind     string    `json:"kind"` // restart or retry
	Asked    time.Time `json:"asked,omitzero"`
	Proved   bool      `json:"proved"`
	At       time.Time `json:"at,omitzero"`
	Evidence string    `json:"evidence,omitempty"`
}

// Safety is what must be there when nobody polls any more.
type Safety struct {
	Receiver   bool    `json:"receiver_known"`
	Silence    float64 `json:"silence_alarm"` // seconds; 0 for none
	Reconciler float64 `json:"reconciler"`    // seconds between two sweeps; 0 for none
	SecretFrom string  `json:"secret_from"`
	Refetch    bool    `json:"refetch"`
	Acts       Side    `json:"acts"` // whose reactions count now
}

// ClassCount is how many observations are in a class.
type ClassCount struct {
	Class   Class        `json:"class"`
	Weight  Weight       `json:"weight"`
	Title   string       `json:"title"`
	Total   int          `json:"total"`
	Kinds   map[Kind]int `json:"kinds"`
	Samples []Row        `json:"samples"` // the first ones
}

// RuleState is a rule about a field, and whether it counts.
type RuleState struct {
	Field string    `json:"field"`
	Owner string    `json:"owner"`
	Until time.Time `json:"until"`
	Why   string    `json:"why"`
	Void  string    `json:"void,omitempty"` // why it does not count; empty if it does
	Hits  int       `json:"hits"`           // differences that it made no mismatch
}

// Counts is what was read.
type Counts struct {
	Entries int `json:"entries"`
	Torn    int `json:"torn"`           // lines that a kill cut off, as far as whoever read the record has said so
	Broken  int `json:"broken"`         // entries that say nothing: U
	Later   int `json:"later"`          // written after the time of the report, so not counted
	Other   int `json:"other_webhooks"` // about other webhooks, so not counted
}

// Row is one observation and its class.
type Row struct {
	Kind       Kind      `json:"kind"`
	Class      Class     `json:"class"`
	At         time.Time `json:"at,omitzero"`
	Ticket     string    `json:"ticket_id,omitempty"`
	UpdatedAt  time.Time `json:"updated_at,omitzero"`
	EventID    string    `json:"event_id,omitempty"`
	EventType  string    `json:"event_type,omitempty"`
	DeliveryID string    `json:"delivery_id,omitempty"`
	Reason     string    `json:"reason,omitempty"`
}

// Plots is what the pictures show beside the rest of a report. It is bounded however
// long the record is: what a picture could not tell apart is left out.
type Plots struct {
	Poll     []float64 `json:"poll"`    // lags in seconds, in their order: all, or maxLags of them, evenly spread
	Webhook  []float64 `json:"webhook"` // the same
	Changes  []int     `json:"changes"` // that the poller saw, in slices of the window; empty for no window
	Blind    []Band    `json:"blind"`   // when the poller was
	Down     []Band    `json:"down"`    // when the receiver was
	Disabled []Band    `json:"disabled"`
	Missed   []Mark    `json:"missed"`      // the first maxMarks
	Doubtful []Mark    `json:"unexplained"` // the first maxMarks
}

// Band is a stretch of the window.
type Band struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Mark is an observation at its place in the window.
type Mark struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}
