/** `npm run anchors`: every row of the anchors for all three models, about five minutes on two cores. */
import { buildTools, runTool } from './tools.ts';

await buildTools();
for (const seed of ['1', '2', '3']) {
  console.log(`# model of seed ${seed}`);
  const { code } = await runTool('anchors', ['--seed', seed], console.log);
  if (code !== 0) process.exitCode = 1;
}
