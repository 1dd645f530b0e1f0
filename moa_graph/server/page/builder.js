export function offerBuilder() {}
