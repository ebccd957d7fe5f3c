package intake

const MaxTopics = maxTopics
