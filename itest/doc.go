// Package itest holds the tests of tailcast that need real components: logrotate, curl, Node, Chromium, nginx, haproxy,
// processes that are killed, and the kernel's sockets. Where a component is missing a test is skipped and says so; with CI=true it fails.
//
// The counts are short by default. ITEST_SOAK=1 takes the long ones, and each has a variable of its own: see setting.
package itest
