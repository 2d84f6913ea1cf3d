"""What bertir costs beside other ways to the same IR: `invoke bench`, run by hand. No part of the wheel, no test."""
