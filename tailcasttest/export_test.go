package tailcasttest

// The rules that the suites quote.
var (
	SourceRules    = sourceRules
	ReplayerRules  = replayerRules
	BackplaneRules = backplaneRules
)
