//go:build !race

package egress

// raceDetector is 0 in a build without the race detector.
const raceDetector = 0
