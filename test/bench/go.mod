module github.com/ticketwire/ticketwire/test/bench

go 1.26.0

replace github.com/ticketwire/ticketwire => ../..

require (
	github.com/standard-webhooks/standard-webhooks/libraries v0.0.1
	github.com/stripe/stripe-go/v85 v85.0.0
	github.com/ticketwire/ticketwire v0.0.0
)
