package delivery

import "time"

// Policy is the server-wide part of the rules: what applies to a webhook that
// configures nothing else. It is immutable after the program started.
type Policy struct {
	Schedule     []time.Duration // delay before each retry; default 1m,5m,30m,2h,12h
	Jitter       float64         // 0..1: a retry is late by up to this share of its delay, never early
	Timeout      time.Duration   // whole exchange; default 10s
	DisableAfter time.Duration   // default 24h; 0 never disables
	WarnAfter    []time.Duration // warning mails during a failing streak; default 1h,12h
	RemindEvery  time.Duration   // between reminder mails while a webhook is disabled for its failures; default 168h; 0 never
	GoneDisables bool            // 410 disables at once (contract D19); default true
}

// Verdict is what Decide makes of an answer.
type Verdict struct {
	Status       Status
	RetryAt      time.Time // when Status is Retrying
	Disable      string    // "" or DisabledGone
	ErrorType    ErrorType
	ErrorMessage string
}
