// Numbers of modules in the order of their use: by default the entry's number comes from the
// folder it was built in, and two checkouts would build two bundles.
module.exports = { optimization: { moduleIds: 'natural' } };
