import type { Command } from 'commander';
import { columns } from './layout.ts';
import { choiceOption, json, print } from './output.ts';
import type { Session } from './session.ts';

export const addLevels = (program: Command, { profiler }: Session): Command =>
  program
    .command('levels')
    .description('list the optimisation levels and the techniques each one stacks')
    .option('--format <format>', 'table or json', choiceOption('--format', ['table', 'json']), 'table')
    .action(async ({ format }: { format: string }) => {
      const levels = profiler.levels();
      if (format === 'json') return print(json(levels));
      const rows = levels.map(({ name, summary, techniques }) => [name, summary, techniques.join(' · ')]);
      return print(columns([['level', 'what it does', 'techniques'], ...rows], 'lll').join('\n'));
    });
