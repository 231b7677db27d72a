/** A worker for a utility process that says what it is and then never answers, or dies where FASTMQA_UTILITY says so. */
const answers = {
  info: { threads: 2, instructionSet: 'scripted', buildFlags: 'none' },
  ceilings: { fmaFlopsPerSecond: 1e11, readBytesPerSecond: 1e10 },
};
// As the real one: only SIGKILL ends it.
process.on('SIGTERM', () => undefined);
process.parentPort.on('message', ({ data: { id, generation, call } }) => {
  if (Object.hasOwn(answers, call)) process.parentPort.postMessage({ id, generation, ok: true, value: answers[call] });
  else if (call !== 'cancel' && process.env.FASTMQA_UTILITY === 'dies')
    process.stderr.write('the last words\n', () => process.exit(7));
});
