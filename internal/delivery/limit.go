package delivery

// PerMinute returns the outbound limit of a webhook: how many requests its
// bucket gains per minute and how many it holds. limited is false only where
// the owner lifted the limit with {"enabled": false} (contract D21); a nil
// RateLimit is DefaultRatePerMinute.
func (r *RateLimit) PerMinute() (perMinute, burst int, limited bool) {
	if r == nil {
		return DefaultRatePerMinute, DefaultRatePerMinute, true
	}
	if r.Enabled != nil && !*r.Enabled {
		return 0, 0, false
	}
	perMinute = DefaultRatePerMinute
	if r.RequestsPerMinute != nil {
		perMinute = *r.RequestsPerMinute
	}
	burst = perMinute
	if r.BurstLimit != nil {
		burst = *r.BurstLimit
	}
	return perMinute, burst, true
}
