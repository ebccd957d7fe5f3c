package main

func idleMain(what string, orders <-chan string, path string) {}
