package delivery

import "time"

// The values of a webhook's health (contract section 3.8).
const (
	Healthy  = "healthy"
	Failing  = "failing"
	Disabled = "disabled"
)

// Counts reports whether the attempt moves the webhook's counters and its
// failing streak. Tests do not count, and neither does a request that our own
// address rules refused: no receiver saw it.
func (d *Delivery) Counts(a Answer) bool { return !d.IsTest && a.Err != ErrSSRF }

// Record counts one attempt that ended at the given time. Only attempts for
// which Delivery.Counts is true may be recorded.
//
// A success ends the failing streak and forgets its warnings. Attempts may be
// recorded out of order: the Last fields never go back, and a failure that is
// older than the last success starts no streak.
func (h *Health) Record(ok bool, at time.Time) {
	h.TotalDeliveries++
	h.LastDeliveryAt = later(h.LastDeliveryAt, at)
	if ok {
		h.SuccessfulDeliveries++
		h.LastSuccessAt = later(h.LastSuccessAt, at)
		h.FailingSince = nil
		h.WarningsSent = 0
		return
	}
	h.FailedDeliveries++
	h.LastFailureAt = later(h.LastFailureAt, at)
	overtaken := h.LastSuccessAt != nil && at.Before(*h.LastSuccessAt)
	if h.FailingSince == nil && !overtaken {
		h.FailingSince = &at
	}
}

// later returns the later of the two. It never returns an old pointer with a
// new value in it: a copy of the Health may share the old one.
func later(old *time.Time, at time.Time) *time.Time {
	if old != nil && old.After(at) {
		return old
	}
	return &at
}

// Reenable forgets the failing streak and its end, so that the first failure
// after PUT {"is_active": true} starts a new one (contract P8). The counters
// stay.
func (h *Health) Reenable() {
	h.AutoDisabledAt = nil
	h.FailingSince = nil
	h.WarningsSent = 0
}

// SuccessRate returns the share of successful attempts, 0 to 1, and 1 before
// the first attempt (contract section 3.8).
func (h Health) SuccessRate() float64 {
	if h.TotalDeliveries == 0 {
		return 1
	}
	return float64(h.SuccessfulDeliveries) / float64(h.TotalDeliveries)
}

// HealthStatus returns Disabled, Failing or Healthy (contract section 3.8). It
// looks at the last attempts, not at the streak: a re-enabled webhook stays
// Failing until an attempt succeeds.
func HealthStatus(w *Webhook) string {
	switch {
	case !w.IsActive || w.AutoDisabledAt != nil:
		return Disabled
	case w.LastFailureAt == nil:
		return Healthy
	case w.LastSuccessAt == nil || w.LastFailureAt.After(*w.LastSuccessAt):
		return Failing
	}
	return Healthy
}

// DisableDue reports whether a webhook has failed for DisableAfter without one
// success in between (contract section 4.11). It is asked after every failed
// attempt and by a timer, so a webhook that gets no new events is found too.
func (p Policy) DisableDue(h Health, active bool, now time.Time) bool {
	return active && p.DisableAfter > 0 && h.FailingSince != nil &&
		now.Sub(*h.FailingSince) >= p.DisableAfter
}

// WarningDue returns how many of the warning mails of the current streak should
// have been sent by now; Health.WarningsSent says how many were.
func (p Policy) WarningDue(h Health, now time.Time) int {
	if h.FailingSince == nil {
		return 0
	}
	n := 0
	for _, after := range p.WarnAfter {
		if now.Sub(*h.FailingSince) >= after {
			n++
		}
	}
	return n
}
