import { Kbd } from '@mantine/core';
import classes from './command-palette.module.css';
import { keyCaps } from './commands.ts';

/** Keys to be pressed together. */
export const KeyCaps = ({ keys }: { readonly keys: string }) => (
  <span className={classes.keys}>
    {keyCaps(keys).map((cap) => (
      <Kbd key={cap} size="xs">
        {cap}
      </Kbd>
    ))}
  </span>
);
