// Package docs holds the OpenAPI document of the service, so that the binary
// serves the description of exactly the version that runs.
//
// It leaves serving it to internal/api, and the checks that every answer agrees
// with it to the tests there.
package docs

import _ "embed"

//go:embed openapi.yaml
var openAPI []byte

// OpenAPI returns the document: OpenAPI 3.1 in YAML. The slice is shared, do not
// change it.
func OpenAPI() []byte { return openAPI }
