package tailcast_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tailcast/tailcast"

// TestArrowsRunOneWay holds the packages to ARCHITECTURE.md: internal packages do not know the hub, nor each other except
// fanout stream; nxtail knows only the hub, and only the examples know nxtail; client knows the hub and wire, and only the examples
// know it; tailcasttest, which is known to tests only, knows the
// hub and testnet; what the sources, which are modules of their own, share knows only the hub, and nobody here knows it; one package
// imports the WebSocket library; and the root stays light.
func TestArrowsRunOneWay(t *testing.T) {
	imports := func(pkg string) []string { return list(t, `{{join .Imports "\n"}}`, pkg) }
	for _, pkg := range list(t, "{{.ImportPath}}", "./...") {
		for _, imp := range imports(pkg) {
			name, ok := strings.CutPrefix(pkg, module+"/internal/")
			switch {
			case strings.HasPrefix(imp, "nhooyr.io/") && name != "wsconn":
				t.Errorf("%s imports %s: only internal/wsconn may", pkg, imp)
			case ok && strings.HasPrefix(imp, module) && (name != "fanout" || imp != module+"/internal/stream"):
				t.Errorf("%s imports %s", pkg, imp)
			case pkg == module+"/nxtail" && strings.HasPrefix(imp, module) && imp != module:
				t.Errorf("%s imports %s", pkg, imp)
			case pkg == module+"/tailcasttest" && strings.HasPrefix(imp, module) && imp != module && imp != module+"/internal/testnet":
				t.Errorf("%s imports %s", pkg, imp)
			case pkg == module+"/client" && strings.HasPrefix(imp, module) && imp != module && imp != module+"/internal/wire":
				t.Errorf("%s imports %s", pkg, imp)
			case imp == module+"/client" && !strings.HasPrefix(pkg, module+"/examples/"):
				t.Errorf("%s imports %s", pkg, imp)
			case strings.HasPrefix(imp, module+"/sources/"):
				t.Errorf("%s imports %s: only the modules below sources may", pkg, imp)
			case pkg == module+"/sources/internal/sourcetest" && imp == module+"/tailcasttest": // for their tests
			case strings.HasPrefix(pkg, module+"/sources/") && strings.HasPrefix(imp, module) && imp != module:
				t.Errorf("%s imports %s", pkg, imp)
			case imp == module+"/tailcasttest":
				t.Errorf("%s imports %s: only tests may", pkg, imp)
			case imp == module+"/nxtail" && !strings.HasPrefix(pkg, module+"/examples/"):
				t.Errorf("%s imports %s", pkg, imp)
			case strings.HasPrefix(imp, "github.com/nxadm/tail") && imp != "github.com/nxadm/tail/winfile" && pkg != module+"/nxtail":
				t.Errorf("%s imports %s: only nxtail may", pkg, imp)
			case pkg == module && strings.HasPrefix(imp, module+"/examples"):
				t.Errorf("the root imports %s", imp)
			}
		}
	}
	allowed := []string{"nhooyr.io/websocket", "github.com/nxadm/tail", "github.com/fsnotify/fsnotify", "golang.org/x/sys"}
	for _, dep := range list(t, "{{if not .Standard}}{{.ImportPath}}{{end}}", "-deps", ".") {
		ours := strings.HasPrefix(dep, module)
		if !ours && !slices.ContainsFunc(allowed, func(a string) bool { return dep == a || strings.HasPrefix(dep, a+"/") }) {
			t.Errorf("the root depends on %s", dep)
		}
	}
	direct := list(t, "{{if not .Indirect}}{{.Path}}{{end}}", "-m", "all")
	for _, m := range direct {
		if m != module && !slices.Contains(allowed, m) {
			t.Errorf("go.mod requires %s directly", m)
		}
	}
}

func list(t *testing.T, format string, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-f", format}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	return strings.Fields(string(out))
}
