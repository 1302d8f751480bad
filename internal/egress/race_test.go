//go:build race

package egress

// raceDetector is 1 in a build with the race detector.
const raceDetector = 1
